"""What routers did with many tokens, counted batch by batch: by layer, and by where a token comes from.

Letters as in ``routing.py``; L MoE layers, S sources of tokens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polyvex.moe.pathways import Pathways
from polyvex.moe.routing import Routing

VISUAL = "visual"
"""The group of all encoders' tokens."""

ALL = "all"
"""The group of all tokens."""

TEXT = "text"
"""The source of tokens that come from no encoder."""


class LayerStatistics:
    """Sums over the tokens of each source that one layer's router saw."""

    def __init__(self, sources: int, experts: int):
        self.tokens = torch.zeros(sources, dtype=torch.float64)
        self.assigned = torch.zeros(sources, experts, dtype=torch.float64)
        self.first = torch.zeros(sources, experts, dtype=torch.float64)
        self.entropy, self.confidence, self.dropped = (torch.zeros(sources, dtype=torch.float64) for _ in range(3))

    def add(self, routing: Routing, source: Int[Tensor, " T"]) -> None:
        """Count the decisions of a batch; ``source`` is -1 on tokens that do not count, such as padding."""
        for index in range(len(self.tokens)):
            some = routing.masked(source == index)
            probs = some.probs.double()
            self.tokens[index] += len(probs)
            self.assigned[index] += some.counts().double().cpu()
            self.first[index] += torch.bincount(some.expert[:, 0], minlength=some.num_experts).double().cpu()
            self.entropy[index] += -torch.special.xlogy(probs, probs).sum().cpu()
            self.confidence[index] += probs.amax(dim=-1).sum().cpu() if len(probs) else 0.0
            self.dropped[index] += float(some.dropped()) * len(probs)

    def table(self, groups: Mapping[str, list[int]]) -> dict[str, Any]:
        """Shares and means for each group of sources."""
        experts = self.first.shape[1]
        kinds: dict[str, Any] = {
            "load": {name: _shares(self.assigned[group].sum(dim=0)) for name, group in groups.items()},
            "first": {name: _shares(self.first[group].sum(dim=0)) for name, group in groups.items()},
        }
        for key, sums, scale in (
            ("entropy", self.entropy, math.log(experts)),
            ("confidence", self.confidence, 1.0),
            ("dropped", self.dropped, 1.0),
        ):
            seen = {name: float(self.tokens[group].sum()) for name, group in groups.items()}
            kinds[key] = {name: float(sums[groups[name]].sum()) / max(one, 1.0) / scale for name, one in seen.items()}
        whole = kinds["load"][ALL]
        kinds["apart"] = {name: _apart(load, whole) for name, load in kinds["load"].items() if name != ALL}
        kinds["dead"] = [index for index, count in enumerate(self.assigned.sum(dim=0).tolist()) if not count]
        return kinds


def _shares(counts: Float[Tensor, " E"]) -> list[float]:
    return (counts / counts.sum().clamp(min=1)).tolist()


def _apart(load: Sequence[float], other: Sequence[float]) -> float:
    """Total variation distance: the share of assignments that would have to go elsewhere; 0 if there are none."""
    return sum(abs(one - two) for one, two in zip(load, other, strict=True)) / 2 if any(load) else 0.0


class RoutingStatistics:
    """Everything that is counted of a model's routers.

    Args:
        sources: names of the visual sources, by the number that a token's layout gives; text comes before them.
        layers: names of the MoE layers, in order.
    """

    def __init__(self, sources: Sequence[str], layers: Sequence[str]):
        self.sources = [TEXT, *sources]
        self.names = list(layers)
        self.layers: list[LayerStatistics] = []
        self.pathways = Pathways(len(self.sources), [])

    def add(
        self, routings: Sequence[Routing], source: Int[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq"]
    ) -> None:
        """Count a batch: the routing of each layer, and the source of each token (-1 on text); padding is left out."""
        if not self.layers:
            experts = [routing.num_experts for routing in routings]
            self.layers = [LayerStatistics(len(self.sources), count) for count in experts]
            self.pathways = Pathways(len(self.sources), experts)
        which = (source + 1).masked_fill(~valid, -1).reshape(-1)
        for layer, routing in zip(self.layers, routings, strict=True):
            layer.add(routing, which)
        self.pathways.add(torch.stack([routing.expert[:, 0] for routing in routings], dim=1), which)

    @property
    def groups(self) -> dict[str, list[int]]:
        """All tokens, text, all visual ones, and those of each source, by the numbers of sources."""
        everything = list(range(len(self.sources)))
        own = {name: [index] for index, name in enumerate(self.sources)}
        return {ALL: everything, TEXT: own.pop(TEXT), VISUAL: everything[1:], **own}

    def tokens(self) -> dict[str, int]:
        """Tokens of each source."""
        counts = self.layers[0].tokens.tolist() if self.layers else [0] * len(self.sources)
        return {name: int(count) for name, count in zip(self.sources, counts, strict=True)}

    def tables(self) -> list[dict[str, Any]]:
        """What each layer did, as plain data."""
        if not self.layers:
            return []
        return [
            {
                "name": name,
                "num_experts": layer.first.shape[1],
                "experts_per_token": float(layer.assigned.sum() / layer.tokens.sum().clamp(min=1)),
                **layer.table(self.groups),
            }
            for name, layer in zip(self.names, self.layers, strict=True)
        ]

    def paths(self) -> dict[str, Any]:
        """Pathways as plain data, of all tokens, of text, and of visual tokens."""
        groups = {name: self.groups[name] for name in (ALL, TEXT, VISUAL)}
        return {
            "tokens": sum(self.tokens().values()),
            "common": {name: self.pathways.common(group) for name, group in groups.items()},
            "flows": {name: self.pathways.flows(group) for name, group in groups.items()},
            "components": {name: self.pathways.components(group) for name, group in groups.items()},
        }
