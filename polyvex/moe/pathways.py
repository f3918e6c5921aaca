"""Paths of tokens through the experts of a model: the first choice in one MoE layer after another.

Letters as in ``routing.py``; L MoE layers.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

COMPONENTS = 12
"""Principal paths that are kept, as MoE-LLaVA draws."""

COMMON = 10
"""Most common paths that are named."""


class Pathways:
    """The first choice of each token in one MoE layer after another: whole paths, steps, and principal paths."""

    def __init__(self, sources: int, experts: Sequence[int]):
        self.experts = list(experts)
        self.paths: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(sources)]
        layers = len(experts)
        self.steps = [
            [torch.zeros(one, other, dtype=torch.float64) for one, other in pairwise(experts)] for _ in range(sources)
        ]
        self.scatter = torch.zeros(sources, layers, layers, dtype=torch.float64)

    def add(self, paths: Int[Tensor, "T L"], source: Int[Tensor, " T"]) -> None:
        """Count the paths of a batch."""
        for index in range(len(self.paths)):
            some = paths[source == index].cpu()
            self.paths[index].update(map(tuple, some.tolist()))
            for layer, counts in enumerate(self.steps[index]):
                code = some[:, layer] * counts.shape[1] + some[:, layer + 1]
                counts.add_(torch.bincount(code, minlength=counts.numel()).reshape(counts.shape))
            centred = some.double() - some.double().mean(dim=1, keepdim=True)
            self.scatter[index] += centred.T @ centred

    def common(self, group: Sequence[int]) -> list[dict[str, Any]]:
        """The most common whole paths, with their share of the group's tokens."""
        together: Counter[tuple[int, ...]] = sum((self.paths[index] for index in group), Counter())
        tokens = max(together.total(), 1)
        ordered = sorted(together.items(), key=lambda item: (-item[1], item[0]))  # ties always in the same order
        return [{"path": list(path), "share": count / tokens} for path, count in ordered[:COMMON]]

    def flows(self, group: Sequence[int]) -> list[list[list[float]]]:
        """For each two neighbouring MoE layers, the share of tokens that go from each expert to each."""
        found = []
        for layer in range(len(self.experts) - 1):
            counts = sum((self.steps[index][layer] for index in group), torch.zeros(1, dtype=torch.float64))
            found.append((counts / counts.sum().clamp(min=1)).tolist())
        return found

    def components(self, group: Sequence[int]) -> list[list[float]]:
        """Principal paths as MoE-LLaVA's ``vis3`` draws them: layers are samples and tokens features of a PCA.

        Its scores follow from the products of layers alone, so no token is kept. Each component is brought to the
        numbers of experts, 0 to E - 1.
        """
        gram = self.scatter[list(group)].sum(dim=0)
        values, vectors = torch.linalg.eigh(gram)
        scores = (vectors * values.clamp(min=0).sqrt()).flip(1)  # largest first
        least = 1e-6 * max(float(gram.trace()), 1.0) ** 0.5  # what is below it is nothing but rounding
        keep = [one for one in scores.T[:COMPONENTS] if float(one.abs().max()) > least]
        return [_to_experts(_signed(one), self.experts) for one in keep]


def _signed(component: Float[Tensor, " L"]) -> Float[Tensor, " L"]:
    """With its largest value positive, which linear algebra leaves open."""
    return component * (-1 if component[component.abs().argmax()] < 0 else 1)


def _to_experts(component: Float[Tensor, " L"], experts: Sequence[int]) -> list[float]:
    low, high = float(component.min()), float(component.max())
    span = max(high - low, 1e-12)
    return [float(value - low) / span * (count - 1) for value, count in zip(component, experts, strict=True)]
