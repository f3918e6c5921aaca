"""From the tables of a configuration to the parts of a model."""

from dataclasses import dataclass

from polyvex.encoders.base import VisionEncoder
from polyvex.fusion.base import Fusion
from polyvex.hooks.manager import Registries
from polyvex.model.config import PolyvexConfig
from polyvex.moe.routers import Router, RouterOptions
from polyvex.moe.upcycle import MoEOptions
from polyvex.positions.base import PositionScheme
from polyvex.recipe.model import EncoderKeys
from polyvex.recipe.tables import read_table
from polyvex.tokens import TokenShape


@dataclass(frozen=True, kw_only=True)
class Components:
    """The parts around a language model; ``router`` is its class and options.

    ``encoders`` is empty where a configuration leaves them out; ``names`` and ``shapes`` are always there.
    """

    names: list[str]
    encoders: dict[str, VisionEncoder]
    shapes: list[TokenShape]
    fusion: Fusion
    positions: PositionScheme
    moe: MoEOptions | None
    router: tuple[type[Router], RouterOptions]


def read_components(config: PolyvexConfig, registries: Registries, *, dim: int) -> Components:
    """Check the tables of ``config`` and build what they name, for a language model of width ``dim``.

    Raises:
        PluginError: if a plugin that the model needs is not installed.
    """
    encoders: dict[str, VisionEncoder] = {}
    names, shapes = [], []
    for table in config.encoders or []:
        origin = (config.plugins or {}).get(table["name"], "")
        options = read_table(registries.encoders, table, keys=EncoderKeys, origin=origin)
        kind = registries.encoders[options.use]
        shapes.append(kind.describe(options).shape)
        names.append(options.name)
        if config.encoders_included:
            encoders[options.name] = kind(options)
    fusion_options = read_table(registries.fusions, config.fusion or {})
    fusion = registries.fusions[fusion_options.use](fusion_options, inputs=shapes, dim=dim)
    scheme_options = read_table(registries.position_schemes, config.positions or {})
    scheme = registries.position_schemes[scheme_options.use](scheme_options, layout=fusion.layout, dim=dim)
    moe, router = read_experts(config, registries)
    return Components(
        names=names, encoders=encoders, shapes=shapes, fusion=fusion, positions=scheme, moe=moe, router=router
    )


def read_experts(
    config: PolyvexConfig, registries: Registries
) -> tuple[MoEOptions | None, tuple[type[Router], RouterOptions]]:
    """The table of experts and the router that it names; None and an unused router while the model is dense."""
    if not config.moe:
        return None, (Router, RouterOptions())
    table = dict(config.moe)
    options = read_table(registries.routers, table.pop("router"))
    return MoEOptions.model_validate(table), (registries.routers[options.use], options)
