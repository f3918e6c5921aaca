"""The step from a dense model to a mixture of experts, inside a run."""

import torch

from polyvex.errors import TrainingError
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.moe.upcycle import begins_unlike, install_experts
from polyvex.training.passes import batches
from polyvex.training.session import Session

TOLERANCE = 1e-3
"""Largest difference of logits that float32 arithmetic may explain."""


@torch.no_grad()
def upcycle(session: Session, model: PolyvexForConditionalGeneration) -> None:
    """Turn the chosen FFNs into experts, and check on real samples that the model still says what it said.

    Raises:
        TrainingError: if the logits changed although what experts start as should say the same.
    """
    recipe = session.recipe
    if recipe.moe is None:
        raise TrainingError(
            f"a stage upcycles, but the recipe {recipe.name} has no [moe]. Add one, or take upcycle out"
        )
    router = recipe.moe.router
    kind = session.registries.routers[router.use]
    probe = next(batches(model, session.processor, session.data.train[:4], session.reader, batch_size=4))
    model.eval()
    dense = model(**probe).logits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        layers = install_experts(model.lm, recipe.moe, (kind, router), copy=True, context=model.context)
        model.adapt_language_model()
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
