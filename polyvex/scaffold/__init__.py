"""A start for new plugins: a package that works, from templates. Importing this imports nothing heavy."""

from typing import Literal

Kind = Literal["encoder", "fusion", "positions", "router", "dataset", "metric"]
"""What a new plugin may bring."""

__all__ = ["Kind"]
