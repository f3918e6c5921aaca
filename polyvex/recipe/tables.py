"""Read one table of a component again, as stored in a model's configuration."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from polyvex.errors import PluginError, RecipeError
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry, unknown
from polyvex.options import Options
from polyvex.recipe.model import encoder_keys, one_table


def read_table(
    registry: Registry[Any], raw: Mapping[str, Any], *, keys: type[Options] | None = None, origin: str = ""
) -> Any:
    """Check a stored table and return its options, with ``use`` and the ``keys`` of its kind.

    Args:
        origin: distribution that brought the component when it was stored; named if it is missing now.

    Raises:
        PluginError: if no installed plugin registers the component.
        RecipeError: if its options no longer fit the installed version.
    """
    if str(raw.get("use")) not in registry:
        hint = f" It came from the distribution {origin}: pip install '{origin}'." if origin else ""
        raise PluginError(unknown(registry.kind, str(raw.get("use")), registry.names()) + "." + hint)
    try:
        return one_table(registry, str(raw["use"]), keys).model_validate(dict(raw))
    except ValidationError as error:
        details = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise RecipeError(details, source=f"stored {registry.kind} '{raw['use']}'") from None


def read_encoder(registries: Registries, raw: Mapping[str, Any], *, origin: str = "") -> Any:
    """As :func:`read_table`, for the table of an encoder with the keys that every encoder has."""
    return read_table(registries.encoders, raw, keys=registries.derive(encoder_keys), origin=origin)
