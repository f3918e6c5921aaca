"""The base of everything that a recipe can set."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict


class IsPath:
    """Mark of an option that names a file or folder; see :data:`LocalPath`."""


LocalPath = Annotated[str, IsPath()]
"""Type of an option that names a file or folder, relative to where the command runs. A run keeps it absolute."""


class IsPerEncoder:
    """Mark of an option whose list has one value for each encoder, in order."""


class Options(BaseModel):
    """Options of one component: the keys that a recipe table may have beside ``use``.

    Strict on purpose: an unknown key is an error, ``"4"`` is not an int, no number is infinite, and values cannot be
    changed later.
    Give each field a default where one makes sense, and a ``description``: listings, the JSON schema, composed
    recipes and the docs all show it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers know the fields, and must report the others

        def __getattr__(self, name: str) -> Any:
            """Explain an option that does not exist: the usual reason is a component without ``Options = ...``."""
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                if name.startswith("_"):
                    raise
                known = ", ".join(type(self).model_fields) or "none"
                raise AttributeError(
                    f"{type(self).__name__} has no option '{name}'; its options: {known}. "
                    "A component with options of its own names their class: Options = MyOptions"
                ) from error

    @classmethod
    def example(cls) -> Self:
        """Options to try the component with, as ``polyvex plugins test`` does; the defaults unless overridden.

        Override it where an option has no default, or where the defaults make something that takes long to check.
        """
        return cls()

    @classmethod
    def path_options(cls) -> list[str]:
        """Names of the options that are a :data:`LocalPath`."""
        return _marked(cls, IsPath)

    @classmethod
    def per_encoder_options(cls) -> list[str]:
        """Names of the options that may be a list with one value for each encoder; they go with it in another order."""
        return _marked(cls, IsPerEncoder)

    def located(self) -> Self:
        """The same options with every :data:`LocalPath` made absolute, so that they hold from anywhere."""
        given = {name: getattr(self, name) for name in self.path_options()}
        return self.model_copy(update={name: absolute(value) for name, value in given.items() if value})


def _marked(options: type[Options], mark: type) -> list[str]:
    """Names of the options whose annotation carries a mark."""
    fields = options.model_fields.items()
    return [name for name, field in fields if any(isinstance(one, mark) for one in field.metadata)]


def absolute(path: str) -> str:
    """An absolute path without ``..``; links stay as they are."""
    return os.path.abspath(path)
