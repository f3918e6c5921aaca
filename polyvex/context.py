"""What the tokens of a running forward are, for layers deep in a language model that only see hidden states.

A decoder layer of transformers hands its feed-forward network nothing but hidden states. Experts must know which of
them are padding, and Partial LoRA which are visual. The model tells it here before it runs its layers.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenKinds:
    """``valid`` is false on padding; ``source`` is the encoder that a token comes from, by number, and -1 on text.

    Tokens that a fusion merged count for the first encoder; those that separate two encoders' runs are text.
    """

    valid: Bool[Tensor, "batch seq"]
    source: Int[Tensor, "batch seq"]


class TokenContext:
    """Shared by a model and its layers; holds :class:`TokenKinds` while a forward runs, and nothing else.

    Activation checkpointing runs a layer again in the backward pass, when the forward is over: give it
    :meth:`remembered` as its ``context_fn``, and the layer finds what it found the first time.
    """

    def __init__(self) -> None:
        self._now: TokenKinds | None = None

    @property
    def now(self) -> TokenKinds | None:
        """What is known of the tokens that run now; None outside a model's forward."""
        return self._now

    @contextmanager
    def telling(self, kinds: TokenKinds | None) -> Iterator[None]:
        """Tell layers what the tokens are, for the length of the block."""
        before, self._now = self._now, kinds
        try:
            yield
        finally:
            self._now = before

    def remembered(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For ``torch.utils.checkpoint``: nothing around the first run of a layer, the same kinds around the second."""
        return nullcontext(), self.telling(self._now)
