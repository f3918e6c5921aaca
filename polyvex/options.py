"""The base of everything that a recipe can set."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of one component: the keys that a recipe table may have beside ``use``.

    Strict on purpose: an unknown key is an error, ``"4"`` is not an int, no number is infinite, and values cannot be
    changed later.
    Give each field a default where one makes sense, and a ``description``: listings, the JSON schema, composed
    recipes and the docs all show it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)
