"""How much each encoder counts in a trained model whose fusion weighs them: in all, and by kind of question."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from polyvex.cache.reader import ImageReader
from polyvex.data.base import Sample
from polyvex.fusion.weights import EncoderWeights, record_encoder_weights
from polyvex.training.passes import batches

ALL = "all"
"""The key of what holds for the questions of all kinds together."""


@torch.inference_mode()
def encoder_weights(
    model: Any, processor: Any, samples: Sequence[Sample], reader: ImageReader, *, batch_size: int = 64
) -> dict[str, dict[str, dict[str, float]]]:
    """For ``all`` and each kind of question, and each encoder: its mean ``weight``, and where it is ``used``.

    ``used`` is the share of images (or of their tokens or tiles, whichever the fusion weighs) at which the weight is
    above zero. Empty if the fusion weighs no encoders, and without images.
    """
    if not any(isinstance(part, EncoderWeights) for part in model.fusion.modules()):
        return {}
    seeing = sorted((sample for sample in samples if sample.images), key=lambda sample: sample.kind)
    found: dict[str, list[Tensor]] = {}
    for kind, group in groupby(seeing, key=lambda sample: sample.kind):
        for batch in batches(model, processor, list(group), reader, batch_size=batch_size):
            with record_encoder_weights(model.fusion) as weights:
                model(**batch)
            found.setdefault(kind, []).extend(one.flatten(0, -2).float().cpu() for one in weights)
    if not found:
        return {}
    rows = {kind: torch.cat(parts) for kind, parts in found.items()}
    named = {ALL: torch.cat(list(rows.values())), **({kind: rows[kind] for kind in rows if kind != ALL})}
    return {kind: _means(model.encoder_names, weights) for kind, weights in named.items()}


def _means(names: Sequence[str], weights: Tensor) -> dict[str, dict[str, float]]:
    weight, used = weights.mean(dim=0).tolist(), (weights > 0).float().mean(dim=0).tolist()
    return {name: {"weight": weight[index], "used": used[index]} for index, name in enumerate(names)}
