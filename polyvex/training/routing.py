"""Which experts the tokens of a trained model go to: by layer, by where a token comes from, and on the image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polyvex.cache.reader import ImageReader
from polyvex.data.base import Sample
from polyvex.errors import RunError
from polyvex.hooks.manager import Registries
from polyvex.moe.record import record_routing, routers, unread_routers
from polyvex.moe.routing import Routing
from polyvex.moe.statistics import ALL, VISUAL, RoutingStatistics
from polyvex.progress import bar
from polyvex.sequence import lay_out
from polyvex.tokens import SequenceLayout
from polyvex.training.opened import OpenedRun, open_split
from polyvex.training.passes import batches
from polyvex.training.session import Say
from polyvex.training.token_views import TokenView, token_views


@dataclass(frozen=True, kw_only=True)
class RoutedPicture:
    """One sample whose tokens are to be drawn back on its image."""

    sample: Sample
    views: list[TokenView]


@dataclass(frozen=True, kw_only=True)
class RoutingFound:
    """What ``polyvex routing`` finds: ``table`` as plain data, and samples to be drawn."""

    table: dict[str, Any]
    pictures: list[RoutedPicture]


@torch.inference_mode()
def routing_statistics(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    reader: ImageReader,
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> RoutingStatistics:
    """Count what the routers of a model do with samples and their answers, batch by batch; no token is kept.

    Tokens that a fusion merged belong to no encoder alone; they count under the names of all, such as ``a+b``. What
    separates two encoders' runs counts as text. Padding does not count.
    """
    found = RoutingStatistics(_sources(model), [f"lm.{name}" for name in routers(model.lm)])
    if not found.names or not samples:
        return found
    with bar(desc="routing", unit="sample", total=len(samples), disable=not progress) as shown:
        for layout, routings in _passes(model, processor, samples, reader, batch_size=batch_size):
            found.add(routings, layout.source, layout.valid)
            shown.update(len(layout.valid))
    return found


def expert_load(
    model: Any, processor: Any, samples: Sequence[Sample], reader: ImageReader, *, batch_size: int = 64
) -> dict[str, dict[str, list[float]]]:
    """For each MoE layer, the share of assignments per expert: of text (with its answer), and of encoders' tokens.

    As :func:`routing_statistics` counts them. Empty for a dense model.
    """
    found = routing_statistics(model, processor, samples, reader, batch_size=batch_size)
    return {
        table["name"]: {name: load for name, load in table["load"].items() if name not in (ALL, VISUAL)}
        for table in found.tables()
    }


def routing_of_run(
    path: str | Path,
    *,
    split: str = "",
    limit: int = 0,
    pictures: int = 4,
    changes: Sequence[str] = (),
    cache: str | Path | None = None,
    registries: Registries | None = None,
    say: Say = print,
    progress: bool = True,
) -> RoutingFound:
    """Count the routing of a finished run over a split; ``split`` empty takes the recipe's test split.

    Args:
        limit: only the first samples; 0 takes all.
        changes: to the recipe's ``[data]``, written ``data.key=value``, to look at other data.
        pictures: how many of the samples with images also say which expert each visual token goes to.

    Raises:
        RunError: if there is no finished run at ``path``, or its language model has no experts.
        DataError: if the data set has no such split, none of its images can be read, or a sample is too long.
    """
    opened = open_split(
        path,
        split=split,
        limit=limit,
        changes=changes,
        cache=cache,
        registries=registries,
        say=say,
        progress=progress,
    )
    model, processor = opened.assistant.model, opened.assistant.processor
    if not routers(model.lm):
        raise RunError(_without_routers(path, model.lm), code="no-routing")
    found = routing_statistics(model, processor, opened.samples, opened.reader, progress=progress)
    shown = list(_pictures(opened, pictures))
    table = {
        "run": str(path),
        "split": opened.split,
        "samples": len(opened.samples),
        "skipped": opened.asked - len(opened.samples),
        "sources": found.sources,
        "tokens": found.tokens(),
        "layers": [{"layer": _number(one["name"]), **one} for one in found.tables()],
        "pathways": {"layers": [_number(name) for name in found.names], **found.paths()},
    }
    return RoutingFound(table=table, pictures=shown)


def _without_routers(path: str | Path, lm: Any) -> str:
    if unread := unread_routers(lm):
        return f"{path}: polyvex cannot read the routers of {type(lm).__name__} ({'; '.join(unread)})"
    return f"{path}: the language model is dense and has no routers. Train a stage with upcycle = true"


def _sources(model: Any) -> list[str]:
    """Names of the visual sources, by the number that layouts give them."""
    return model.encoder_names if model.fusion.separate else ["+".join(model.encoder_names)]


def _passes(
    model: Any, processor: Any, samples: Sequence[Sample], reader: ImageReader, *, batch_size: int
) -> Iterator[tuple[SequenceLayout, list[Routing]]]:
    """The layout of each batch, and the routing of each MoE layer."""
    for batch in batches(model, processor, samples, reader, batch_size=batch_size):
        placeholders = batch["input_ids"] == model.config.image_token_id
        layouts = model.layouts_of(batch.get("image_sizes"))
        layout = lay_out(placeholders, batch["attention_mask"].bool(), layouts)
        with record_routing(model.lm) as routings:
            model(**batch)
        yield layout, routings


@torch.inference_mode()
def _pictures(opened: OpenedRun, count: int) -> Iterator[RoutedPicture]:
    """Samples with different images, in order, with the first choice of each of their visual tokens."""
    model, processor = opened.assistant.model, opened.assistant.processor
    seen: dict[tuple[str, ...], Sample] = {}
    for sample in opened.samples:
        if len(seen) == count:
            break
        if sample.images:
            seen.setdefault(tuple(sample.images), sample)
    layers = [_number(name) for name in routers(model.lm)]
    for sample in seen.values():
        ((layout, routings),) = _passes(model, processor, [sample], opened.reader, batch_size=1)
        firsts = {layer: routing.expert[:, 0].cpu() for layer, routing in zip(layers, routings, strict=True)}
        limits = opened.reader.cache.limits
        views = token_views(model, sample, layout, firsts, names=_sources(model), limits=limits)
        yield RoutedPicture(sample=sample, views=views)


def _number(name: str) -> int:
    """The number of a decoder layer from the name of its network."""
    return next(int(part) for part in name.split(".") if part.isdigit())
