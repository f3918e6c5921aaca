"""The mixture-of-experts feed-forward layer that takes the place of a language model's FFN."""

from jaxtyping import Float
from torch import Tensor, nn

from polyvex.moe.experts import GatedExperts
from polyvex.moe.routers import Router


class MoEFeedForward(nn.Module):
    """A router and its experts, with the signature of the dense FFN that it replaces.

    Nothing is kept on the module: ``record.py`` reads the router's decisions while a forward runs.
    """

    def __init__(self, *, router: Router, experts: GatedExperts):
        super().__init__()
        self.router = router
        self.experts = experts

    def forward(self, hidden_states: Float[Tensor, "batch seq D"]) -> Float[Tensor, "batch seq D"]:
        """Route every token, padding too: a token's output never depends on others, so padding changes nothing."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        return self.experts(tokens, self.router(tokens)).reshape(hidden_states.shape)
