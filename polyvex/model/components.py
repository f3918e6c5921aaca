"""From the tables of a configuration to the parts of a model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from polyvex.adapters import LoRA
from polyvex.encoders.base import VisionEncoder
from polyvex.encoders.tuning import adapt
from polyvex.encoders.views import EncoderViews
from polyvex.encoders.weights import WeightsReport
from polyvex.errors import RecipeError
from polyvex.fusion.base import Fusion
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry
from polyvex.layouts import ImageLayouts, image_layouts, token_shapes
from polyvex.model.config import PolyvexConfig
from polyvex.model.merge import MergeViews
from polyvex.moe.options import MoEOptions
from polyvex.moe.routers import Router, RouterOptions
from polyvex.positions import PositionAssigner
from polyvex.positions.build import build_assigner
from polyvex.recipe.model import FusionKeys
from polyvex.recipe.tables import origin_of, read_encoder, read_table
from polyvex.reducers.base import Reducer
from polyvex.tokens import TokenShape


@dataclass(frozen=True, kw_only=True)
class Components:
    """The parts around a language model; ``router`` is its class and options.

    Of the encoders, ``tables`` and ``views`` by name, and ``shapes`` (of one tile, as it emits them) in
    order; ``reducers`` by name, of those that have one; ``layouts`` is of whole
    images, after fusion.
    """

    tables: dict[str, Any]
    shapes: list[TokenShape]
    reducers: dict[str, Reducer]
    views: dict[str, EncoderViews]
    layouts: ImageLayouts
    merge: MergeViews
    fusion: Fusion
    positions: PositionAssigner
    moe: MoEOptions | None
    router: tuple[type[Router], RouterOptions]


def read_components(
    config: PolyvexConfig, registries: Registries, *, dim: int, device: torch.device | str = "cpu"
) -> Components:
    """Check the tables of ``config`` and build what they name, for a language model of width ``dim``.

    Args:
        device: where fusion and reducers are made; ``meta`` if they are only to be counted.

    Raises:
        PluginError: if a plugin that the model needs is not installed.
    """
    tables = read_encoders(config, registries)
    kinds = [(registries.encoders[table.use], table) for table in tables]
    emitted = [kind.describe(table).shape for kind, table in kinds]
    shapes = token_shapes(kinds, registries.reducers)
    fusion_options = _read(registries.fusions, config.fusion or {}, config, keys=FusionKeys)
    fusion_kind = registries.fusions[fusion_options.use]
    learned = fusion_options.separator == "learned"
    separator = 1 if learned else len(config.separator_ids or [])
    layouts = image_layouts(kinds, (fusion_kind, fusion_options), shapes=shapes, dim=dim, separator=separator)
    with torch.device(device):
        fusion = fusion_kind(fusion_options, inputs=shapes, dim=dim)
        reducers = {
            table.name: registries.reducers[table.reduce.use](table.reduce, shape=shape)
            for (_, table), shape in zip(kinds, emitted, strict=True)
            if table.reduce is not None
        }
    scheme = _read(registries.position_schemes, config.positions or {}, config)
    own = {index: table.positions for index, (_, table) in enumerate(kinds) if table.positions is not None}
    positions = build_assigner(registries.position_schemes, scheme, own, layout=layouts.widest(), dim=dim)
    moe, router = read_experts(config, registries)
    return Components(
        tables={table.name: table for _, table in kinds},
        shapes=emitted,
        reducers=reducers,
        views={table.name: EncoderViews(kind=kind, options=table, tiling=table.tiling) for kind, table in kinds},
        layouts=layouts,
        merge=MergeViews(layouts, dim=dim, learned=learned),
        fusion=fusion,
        positions=positions,
        moe=moe,
        router=router,
    )


def build_encoders(
    config: PolyvexConfig, registries: Registries, *, pretrained: bool = False, brought: Collection[str] = ()
) -> tuple[dict[str, VisionEncoder], dict[str, WeightsReport]]:
    """Build the encoders that a model of ``config`` holds: all of them, or only those that learn.

    Args:
        pretrained: also load their pretrained weights, before adapters are put in; else the weights are fresh.
        brought: names of those whose weights come from elsewhere, so that theirs stay fresh in any case.

    Returns:
        The encoders and the account of their weights (empty for fresh ones), by name.

    Raises:
        WeightsError: if weights are missing or do not fit.
        RecipeError: if adapters fit no layer.
    """
    encoders, reports = {}, {}
    for table in read_encoders(config, registries):
        if not config.encoders_included and table.tune == "frozen":
            continue
        encoder = registries.encoders[table.use](table)
        if pretrained and table.name not in brought:
            reports[table.name] = encoder.load_pretrained()
        try:
            encoders[table.name] = adapt(encoder, table.lora or LoRA()) if table.tune == "lora" else encoder
        except ValueError as error:
            raise RecipeError([f"[[encoders]] {table.name}: {error}"]) from None
    return encoders, reports


def read_encoders(config: PolyvexConfig, registries: Registries) -> list[Any]:
    """The encoders' tables, checked, in order.

    Raises:
        PluginError: if a plugin that brought one of them is not installed.
    """
    return [
        read_encoder(registries, table, origin=(config.plugins or {}).get(table["name"], ""), plugins=config.plugins)
        for table in config.encoders or []
    ]


def _read(registry: Registry[Any], raw: Mapping[str, Any], config: PolyvexConfig, **keys: Any) -> Any:
    """As :func:`read_table`; an error names the distribution that the component came from."""
    return read_table(registry, raw, origin=origin_of(registry, raw, config.plugins), **keys)


def read_experts(
    config: PolyvexConfig, registries: Registries
) -> tuple[MoEOptions | None, tuple[type[Router], RouterOptions]]:
    """The table of experts and the router that it names; None and an unused router while the model is dense."""
    if not config.moe:
        return None, (Router, RouterOptions())
    table = dict(config.moe)
    options = _read(registries.routers, table.pop("router"), config)
    return MoEOptions.model_validate(table), (registries.routers[options.use], options)
