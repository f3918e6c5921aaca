"""The mixture-of-experts feed-forward layer that takes the place of a language model's FFN."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from polyvex.context import TokenContext
from polyvex.moe.experts import GatedExperts
from polyvex.moe.routers import Router


class MoEFeedForward(nn.Module):
    """A router and its experts, with the signature of the dense FFN that it replaces.

    Nothing is kept on the module: ``record.py`` reads the router's decisions while a forward runs. Which tokens are
    padding is read from ``context``; without one, or outside its model's forward, all are real.
    """

    def __init__(self, *, router: Router, experts: GatedExperts, context: TokenContext | None = None):
        super().__init__()
        self.router = router
        self.experts = experts
        self.context = context or TokenContext()

    def forward(self, hidden_states: Float[Tensor, "batch seq D"]) -> Float[Tensor, "batch seq D"]:
        """Route every token. Padding goes through routers that look at each token alone, and changes nothing there."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        return self.experts(tokens, self.router(tokens, self._valid(hidden_states))).reshape(hidden_states.shape)

    def _valid(self, hidden_states: Float[Tensor, "batch seq D"]) -> Bool[Tensor, "batch seq"]:
        if self.context.now is not None:
            return self.context.now.valid
        return torch.ones(hidden_states.shape[:-1], dtype=torch.bool, device=hidden_states.device)
