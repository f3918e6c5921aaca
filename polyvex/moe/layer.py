"""The mixture-of-experts feed-forward layer that takes the place of a language model's FFN."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from polyvex.context import TokenContext
from polyvex.moe.experts import Experts
from polyvex.moe.routers import Router


class MoEFeedForward(nn.Module):
    """A router and its experts, with the signature of the dense FFN that it replaces.

    Nothing is kept on the module: ``record.py`` reads the router's decisions while a forward runs. Which tokens are
    padding is read from ``context``; without one, or outside its model's forward, all are real.

    ``beside`` is an FFN that works on every token: added to what the experts say (a shared expert, DeepSeekMoE,
    arXiv 2401.06066, eq. 9), or with ``weigh`` both weighed by a softmax for each token (residual MoE, arXiv
    2201.05596).
    """

    def __init__(
        self,
        *,
        router: Router,
        experts: Experts,
        context: TokenContext | None = None,
        beside: nn.Module | None = None,
        weigh: nn.Linear | None = None,
    ):
        super().__init__()
        self.beside = beside
        self.weigh = weigh
        self.router = router
        self.experts = experts
        self.context = context or TokenContext()

    def forward(self, hidden_states: Float[Tensor, "batch seq D"]) -> Float[Tensor, "batch seq D"]:
        """Route every token. Padding goes through routers that look at each token alone, and changes nothing there."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        said = self.experts(tokens, self.router(tokens, self._valid(hidden_states)))
        if self.beside is None:
            return said.reshape(hidden_states.shape)
        other = self.beside(tokens)
        if self.weigh is None:
            return (said + other).reshape(hidden_states.shape)
        share = self.weigh(tokens).float().softmax(dim=-1).to(said.dtype)
        return (share[:, :1] * said + share[:, 1:] * other).reshape(hidden_states.shape)

    def _valid(self, hidden_states: Float[Tensor, "batch seq D"]) -> Bool[Tensor, "batch seq"]:
        if self.context.now is not None:
            return self.context.now.valid
        return torch.ones(hidden_states.shape[:-1], dtype=torch.bool, device=hidden_states.device)
