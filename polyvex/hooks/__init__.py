"""How plugins are found and what they may register."""

from polyvex.hooks.specs import hookimpl

__all__ = ["hookimpl"]
