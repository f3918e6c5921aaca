"""Attention implementations, and the mask of texts that are packed into one row."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from polyvex.errors import ContractError
from polyvex.recipe.check import FLASH

ATTENTION = ("sdpa", "eager", "flex_attention")
"""Attention implementations that are proven right with positions that repeat."""

NAMES = {"sdpa": "sdpa", "eager": "eager", "flex": "flex_attention"}
"""What recipes call an attention implementation, and what transformers does."""


def check_attention(lm: Any) -> None:
    """Refuse what would read shared positions as packed sequences, however it was switched on.

    Raises:
        ContractError: with the implementations that are right.
    """
    if (got := lm.config._attn_implementation) not in ATTENTION:
        raise ContractError(
            f"the language model's attention is '{got}', but {FLASH}. Use one of {', '.join(ATTENTION)}: "
            f"model.set_attn_implementation('sdpa')"
        )


def sliding_window(lm: Any) -> int | None:
    """How far back a language model's layers look at most, if some of them do not see everything."""
    config = lm.config.get_text_config()
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


def packed_mask(
    lm: Any, documents: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"], dtype: torch.dtype
) -> Tensor | BlockMask:
    """The mask under which a place sees itself and all real places before it in its own text.

    It is made here, since transformers would read the borders of texts off the positions, and these may repeat.

    Args:
        lm: the language model, whose attention implementation says in which form it wants the mask.
        documents: number of the text that each place belongs to.
        dtype: of the embeddings.

    Raises:
        ContractError: if the language model has layers with sliding windows, which this mask would widen.
    """
    if (window := sliding_window(lm)) is not None and window < documents.shape[1]:
        raise ContractError(
            f"texts cannot be packed for a language model with a sliding window ({window} tokens): set training.pack = "
            f"false"
        )
    if lm.config._attn_implementation == "flex_attention":
        return _blocks(documents, valid)
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    same = documents[:, :, None] == documents[:, None, :]
    itself = torch.eye(length, dtype=torch.bool, device=documents.device)  # padding must see something, or it is NaN
    allowed = ((same & causal & valid[:, None, :]) | itself)[:, None]
    if lm.config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def _blocks(documents: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"]) -> BlockMask:
    def allowed(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = documents[batch, query] == documents[batch, key]
        return ((query >= key) & same & valid[batch, key]) | (query == key)

    rows, length = documents.shape
    return create_block_mask(allowed, rows, None, length, length, device=str(documents.device))
