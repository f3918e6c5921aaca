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
    _check_installed(registry, raw, origin)
    try:
        return one_table(registry, str(raw["use"]), keys).model_validate(dict(raw))
    except ValidationError as error:
        details = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise RecipeError(details, source=f"stored {registry.kind} '{raw['use']}'") from None


def read_encoder(
    registries: Registries, raw: Mapping[str, Any], *, origin: str = "", plugins: Mapping[str, str] | None = None
) -> Any:
    """As :func:`read_table`, for the table of an encoder with the keys that every encoder has.

    Args:
        plugins: stored distributions of the reducer and position scheme that the table may name.
    """
    _check_installed(registries.encoders, raw, origin)
    for key, registry in (("reduce", registries.reducers), ("positions", registries.position_schemes)):
        if isinstance(table := raw.get(key), Mapping):
            _check_installed(registry, table, origin_of(registry, table, plugins))
    return read_table(registries.encoders, raw, keys=registries.derive(encoder_keys), origin=origin)


def origin_key(registry: Registry[Any], use: str) -> str:
    """Key of a component among the stored distributions. No encoder has a name with a space."""
    return f"{registry.kind} {use}"


def origin_of(registry: Registry[Any], raw: Mapping[str, Any], plugins: Mapping[str, str] | None) -> str:
    """The stored distribution of the component that a table names; empty if it is not known."""
    return (plugins or {}).get(origin_key(registry, str(raw.get("use"))), "")


def _check_installed(registry: Registry[Any], raw: Mapping[str, Any], origin: str) -> None:
    use = str(raw.get("use"))
    if use not in registry:
        hint = f" It came from the distribution {origin}: pip install '{origin}'." if origin else ""
        if (file := origin.partition("==")[0]).endswith(".py"):
            hint = f" It came from the file {file}: add --plugin {file} to the command."
        raise PluginError(unknown(registry.kind, use, registry.names()) + "." + hint, code="plugin-missing")
