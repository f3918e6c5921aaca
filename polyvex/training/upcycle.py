"""The step from a dense model to a mixture of experts, inside a run."""

from typing import Any

import torch

from polyvex.data.batches import Collator, ExampleDataset, to_device
from polyvex.errors import TrainingError
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.moe.upcycle import begins_unlike, install_experts
from polyvex.training.session import Session

TOLERANCE = 1e-3
"""Largest difference of logits that float32 arithmetic may explain."""


@torch.no_grad()
def upcycle(session: Session, model: PolyvexForConditionalGeneration) -> None:
    """Turn the chosen FFNs into experts, and check on real samples that the model still says what it said.

    Raises:
        TrainingError: if the logits changed although the router's weights sum to one.
    """
    recipe = session.recipe
    if recipe.moe is None:
        raise TrainingError(
            f"a stage upcycles, but the recipe {recipe.name} has no [moe]. Add one, or take upcycle out"
        )
    router = recipe.moe.router
    kind = session.registries.routers[router.use]
    probe = to_device(_probe(session, context=model.context_length), model.device)
    model.eval()
    dense = model(**probe).logits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        layers = install_experts(model.lm, recipe.moe, (kind, router), copy=True, context=model.context)
    gap = (dense - model(**probe).logits).abs().max().item()
    model.config.moe = recipe.moe.model_dump()
    session.say(f"upcycled {', '.join(layers)} into {_listed(recipe.moe.counts)} experts; logits moved by {gap:.1e}")
    if begins_unlike(recipe.moe, (kind, router)):
        return
    if gap > TOLERANCE:
        raise TrainingError(
            f"upcycling changed the logits by {gap:.2e}; what experts start as must not. Is the router's "
            f"weights_sum_to_one true?"
        )


def _listed(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


def _probe(session: Session, *, context: int | None) -> dict[str, Any]:
    samples = session.data.train[:4]
    processor = session.processor
    reader = session.reader
    dataset = ExampleDataset(samples, processor.prompts, images=True, context=context, count=reader.count)
    collate = Collator(pad=processor.tokenizer.pad_token_id, read_images=reader)
    batch = collate([dataset[index] for index in range(len(samples))])
    batch.pop("labels")
    return batch
