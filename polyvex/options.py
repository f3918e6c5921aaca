"""The base of everything that a recipe can set."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict


class IsPath:
    """Mark of an option that names a file or folder; see :data:`LocalPath`."""


LocalPath = Annotated[str, IsPath()]
"""Type of an option that names a file or folder, relative to where the command runs. A run keeps it absolute."""


class Options(BaseModel):
    """Options of one component: the keys that a recipe table may have beside ``use``.

    Strict on purpose: an unknown key is an error, ``"4"`` is not an int, no number is infinite, and values cannot be
    changed later.
    Give each field a default where one makes sense, and a ``description``: listings, the JSON schema, composed
    recipes and the docs all show it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)

    def located(self) -> Self:
        """The same options with every :data:`LocalPath` made absolute, so that they hold from anywhere."""
        changes: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value and isinstance(value, str) and any(isinstance(mark, IsPath) for mark in field.metadata):
                changes[name] = str(Path(value).absolute())
        return self.model_copy(update=changes)
