"""A routing decision as data.

Legend of this package: T tokens, E experts, K experts chosen per token, D model width, I expert width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Routing:
    """Which experts each token goes to.

    ``expert`` and ``weight`` are the K choices, best first; ``logits`` and ``probs`` cover all experts, in float32.
    """

    expert: Int[Tensor, "T K"]
    weight: Float[Tensor, "T K"]
    logits: Float[Tensor, "T E"]
    probs: Float[Tensor, "T E"]

    def masked(self, valid: Tensor) -> "Routing":
        """The decisions of the tokens that ``valid`` (T booleans) keeps."""
        return Routing(
            expert=self.expert[valid], weight=self.weight[valid], logits=self.logits[valid], probs=self.probs[valid]
        )

    def load(self) -> Float[Tensor, " E"]:
        """Share of all T·K assignments that each expert gets; sums to one."""
        counts = torch.bincount(self.expert.reshape(-1), minlength=self.probs.shape[-1])
        return counts.float() / max(self.expert.numel(), 1)
