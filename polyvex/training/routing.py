"""Which experts the tokens of a trained model go to: by layer, and by where a token comes from."""

from collections.abc import Sequence
from typing import Any

import torch

from polyvex.cache.reader import ImageReader
from polyvex.data.base import Sample
from polyvex.moe.record import record_routing
from polyvex.sequence import lay_out
from polyvex.tokens import TEXT
from polyvex.training.parts import expert_layers
from polyvex.training.passes import batches


@torch.inference_mode()
def expert_load(
    model: Any, processor: Any, samples: Sequence[Sample], reader: ImageReader, *, batch_size: int = 64
) -> dict[str, dict[str, list[float]]]:
    """For each MoE layer, the share of assignments per expert: of text (with its answer), and of encoders' tokens.

    Tokens that a fusion merged belong to no encoder alone; they count under the names of all, such as ``a+b``. Empty
    for a dense model. Padding does not count.
    """
    layers = expert_layers(model)
    if not layers or not samples:
        return {}
    own = model.fusion.separate
    runs = model.encoder_names if own else ["+".join(model.encoder_names)] * len(model.layouts.runs)
    names = {TEXT: "text", **dict(enumerate(runs))}
    counts = {layer: {name: torch.zeros(0) for name in names.values()} for layer in layers}
    for batch in batches(model, processor, samples, reader, batch_size=batch_size):
        ids = batch["input_ids"]
        layouts = model.layouts_of(batch.get("image_sizes"))
        layout = lay_out(ids == model.config.image_token_id, batch["attention_mask"].bool(), layouts)
        with record_routing(model.lm) as routings:
            model(**batch)
        for layer, routing in zip(layers, routings, strict=True):
            for source, name in names.items():
                chosen = ((layout.source == source) & layout.valid).reshape(-1)
                added = routing.masked(chosen).counts().cpu()
                counts[layer][name] = counts[layer][name] + added if counts[layer][name].numel() else added
    return {
        layer: {name: (count / count.sum().clamp(min=1)).tolist() for name, count in by_source.items()}
        for layer, by_source in counts.items()
    }
