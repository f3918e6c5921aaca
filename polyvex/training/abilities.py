"""What a recipe asks of its language model, and whether it can: by its structure, and by trying it."""

import inspect
from typing import Any

import torch
from torch import nn

from polyvex.cache.place import best_device
from polyvex.errors import RecipeError
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.attention import packed_mask, sliding_window
from polyvex.moe.experts import GatedExperts
from polyvex.moe.interface import PREFIX, interface
from polyvex.moe.record import routers
from polyvex.recipe.check import unheard_losses
from polyvex.recipe.schema import Recipe
from polyvex.training.trial import trial_problems

POSITIONS = ("rotary", "wpe", "embed_positions", "position_embed", "positions_embed")
"""Parts of the names of modules and buffers that make something of position ids."""

WHOLE = {"full_attention", "attention", "sliding_attention"}
"""Types of layers under which a mask says who sees whom."""


def language_model_problems(recipe: Recipe, model: PolyvexForConditionalGeneration) -> list[str]:
    """What the recipe asks for and the language model cannot do, by its structure; it may be on ``meta``."""
    if refused := _cache(model.lm) or trial_problems(model.lm):
        return refused
    return [*_positions(recipe, model), *_attention(recipe, model.lm), *_losses(recipe, model.lm), *_kernels(recipe)]


def _cache(lm: Any) -> list[str]:
    """A cache for decoding, which polyvex needs."""
    if "past_key_values" in inspect.signature(type(lm).forward).parameters:
        return []
    return [
        f"[lm]: {type(lm).__name__} decodes without a key-value cache, which polyvex needs. Take an attention model"
    ]


def _losses(recipe: Recipe, lm: Any) -> list[str]:
    """Losses for routers, if a loaded language model turns out to have none."""
    told = recipe.moe is None and not routers(lm)
    return [one for one in unheard_losses(recipe) if told]


def _kernels(recipe: Recipe) -> list[str]:
    """Let a few small experts be computed as the recipe asks: some ways need a GPU, or libraries that are not here."""
    if recipe.moe is None or not recipe.moe.backend.startswith(PREFIX):
        return []
    experts = GatedExperts(num_experts=2, dim=64, hidden=64, act=nn.functional.silu, backend=recipe.moe.backend)
    device = best_device()
    rows, sizes = torch.zeros(2, 64, device=device), torch.ones(2, dtype=torch.long, device=device)
    try:
        interface(recipe.moe.backend)(experts.to(device), rows, sizes)
    except RecipeError:
        return []  # there is none of that name, which the stage that upcycles tells
    except Exception as error:  # whatever a kernel of somebody else says
        why = " ".join(str(error).split())[:300]
        return [f"[moe]: backend = '{recipe.moe.backend}' does not run here ({device.type}): {why}. Take auto"]
    return []


def _asking(recipe: Recipe) -> list[Any]:
    """The tables of schemes that give other positions than the language model's own."""
    own = [table.positions for table in recipe.encoders if table.positions is not None]
    return [table for table in (recipe.positions, *own) if table.use != "sequential" or table.base != "sequential"]


def _positions(recipe: Recipe, model: PolyvexForConditionalGeneration) -> list[str]:
    """What a position scheme asks: that positions are used, and those with a fraction too."""
    name = type(model.lm).__name__
    tables = _asking(recipe)
    if tables and not reads_positions(model.lm):
        return [
            f"[positions]: {name} makes nothing of position ids, so '{tables[0].use}' would have no effect. Use "
            f"positions.use = 'sequential', or a language model with rotary or learned positions"
        ]
    layout = model.layouts.of(None if model.layouts.fixed else (1, 1))
    broken = model.positions.of_image(layout)[0].is_floating_point()
    if broken and not any("rotary" in type(module).__name__.lower() for module in model.lm.modules()):
        schemes = " or ".join(dict.fromkeys(f"'{table.use}'" for table in tables))
        return [
            f"[positions]: {name} looks its positions up in a table, so it cannot take those with a fraction, which "
            f"{schemes} gives. Use a scheme of whole positions, or a language model with rotary positions"
        ]
    return []


def reads_positions(lm: Any) -> bool:
    """Whether a language model makes something of position ids, as far as its structure tells."""
    if "position_ids" not in inspect.signature(type(lm).forward).parameters or _alibi(lm):
        return False
    names = (name.lower() for name, _ in [*lm.named_modules(), *lm.named_buffers()])
    return any(part in name for name in names for part in POSITIONS)


def _alibi(lm: Any) -> bool:
    return bool(getattr(lm.config.get_text_config(), "alibi", False))


def _attention(recipe: Recipe, lm: Any) -> list[str]:
    """What packing and an attention implementation ask of the language model and of this machine."""
    problems = []
    if recipe.training.pack and (why := unpackable(lm)):
        problems.append(f"[training]: texts cannot be packed for {type(lm).__name__}, which {why}. Set pack = false")
    if recipe.lm.attention == "flex" and best_device().type == "cpu":
        problems.append(
            "[lm]: torch has no backward pass of flex attention on a CPU. Set attention = 'sdpa', or train on a GPU"
        )
    return problems


def unpackable(lm: Any) -> str:
    """Why the texts of a row could see each other whatever the mask says; empty if they cannot."""
    config = lm.config.get_text_config()
    if (window := sliding_window(lm)) is not None:
        return f"has a sliding window ({window} tokens)"
    if getattr(config, "attention_chunk_size", None):
        return f"attends within chunks of {config.attention_chunk_size} tokens"
    others = sorted(set(getattr(config, "layer_types", None) or []) - WHOLE)
    if others or getattr(type(lm), "_is_stateful", False) or any(isinstance(one, nn.Conv1d) for one in lm.modules()):
        return f"has layers that carry on from text to text ({', '.join(others) or 'a state'})"
    return "" if reads_positions(lm) else "counts positions by itself"


@torch.no_grad()
def proven(recipe: Recipe, lm: Any) -> list[str]:
    """Try on the language model itself what its structure promised: a few random embeddings go through it.

    Positions must change what it says if a scheme gives some; packed texts must say what they say alone.
    """
    training = lm.training
    lm.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scale = lm.get_input_embeddings().weight.float().std().item() or 1.0
        embeds = torch.randn(1, 6, lm.config.get_text_config().hidden_size, device=lm.device) * scale
    embeds = embeds.to(lm.get_input_embeddings().weight.dtype)
    found = _moved(recipe, lm, embeds) + _packed(recipe, lm, embeds)
    lm.train(training)
    return found


def _said(lm: Any, embeds: torch.Tensor, ids: list[int], mask: Any) -> torch.Tensor:
    positions = torch.tensor([ids], device=embeds.device)
    known = "position_ids" in inspect.signature(type(lm).forward).parameters
    told = {"position_ids": positions} if known else {}
    return lm(inputs_embeds=embeds, attention_mask=mask, use_cache=False, **told).logits.float()


def _moved(recipe: Recipe, lm: Any, embeds: torch.Tensor) -> list[str]:
    if not _asking(recipe):
        return []
    mask = torch.ones(1, 6, dtype=torch.long, device=embeds.device)
    if not torch.equal(_said(lm, embeds, list(range(6)), mask), _said(lm, embeds, [0, 1, 1, 1, 1, 2], mask)):
        return []
    return [
        f"[positions]: {type(lm).__name__} says the same at other positions, so '{_asking(recipe)[0].use}' would have "
        f"no effect. Use positions.use = 'sequential'"
    ]


def _packed(recipe: Recipe, lm: Any, embeds: torch.Tensor) -> list[str]:
    if not recipe.training.pack:
        return []
    documents = torch.tensor([[0, 0, 0, 1, 1, 1]], device=embeds.device)
    mask = packed_mask(lm, documents, torch.ones_like(documents, dtype=torch.bool), embeds.dtype)
    together = _said(lm, embeds, [0, 1, 2, 0, 1, 2], mask)[:, 3:]
    alone = _said(lm, embeds[:, 3:], [0, 1, 2], torch.ones(1, 3, dtype=torch.long, device=embeds.device))
    if torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * alone.abs().max().item()):
        return []
    return [
        f"[training]: in {type(lm).__name__} a packed text does not say what it says alone, so its layers see other "
        f"texts of the row. Set pack = false"
    ]
