"""A run's language model as a directory that plain transformers loads, in the form of a known family."""

from polyvex.export.families import FAMILIES, Family, family_named
from polyvex.export.reasons import reasons
from polyvex.export.write import Exported, export_run

__all__ = ["FAMILIES", "Exported", "Family", "export_run", "family_named", "reasons"]
