"""MouSi's Q-Former fusion: the queries of a Q-Former look at each encoder by itself (arXiv 2401.17221, §3.2).

The paper's body was not to be had; that one Q-Former serves all encoders, behind a linear layer of each, starts from
BLIP-2's weights, and that runs come one behind the other, is what others say of it. The Q-Former is BLIP-2's
(arXiv 2301.12597, §3.1): with one encoder that is ``width`` wide, this is BLIP-2's bridge to a language model.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from polyvex.encoders.base import WeightsPlace
from polyvex.encoders.files import WEIGHT_FILES, find_in_folder, read_weights, weight_files
from polyvex.encoders.weights import WeightsReport, load_strictly
from polyvex.errors import WeightsError
from polyvex.fusion.base import Fusion
from polyvex.fusion.qformer_layers import QFormer, QFormerOptions, check_heads
from polyvex.options import LocalPath
from polyvex.tokens import TokenShape

TEXT_BRANCH = re.compile(r"qformer\.(embeddings\..*|encoder\.layer\.\d+\.(intermediate|output)\..*)")
"""Weights of the branch that reads text, which some of BLIP-2's checkpoints have."""


class QFormerFusionOptions(QFormerOptions):
    """Options of the ``qformer`` fusion."""

    share_weights: bool = Field(
        default=True, description="One Q-Former for all encoders, as MouSi has it; false gives each its own."
    )
    share_queries: bool = Field(
        default=True, description="One set of queries for all encoders; false gives each its own."
    )
    weights: LocalPath = Field(
        default="",
        description="A BLIP-2 checkpoint to start the Q-Former and its queries from: a file of weights, or a folder "
        "with one. They fit the default sizes. Random weights if empty.",
    )


class QFormerFusion(Fusion[QFormerFusionOptions]):
    """Per encoder: a linear layer to the Q-Former's ``width``, its queries, a linear layer to the model's width.

    The linear layers are each encoder's own in any case. The first is left out for an encoder that is ``width`` wide
    and has the Q-Former to itself. What comes out has no grid.
    """

    Options = QFormerFusionOptions
    separate = True
    summary = "the queries of a Q-Former look at each encoder by itself; may start from BLIP-2's weights (MouSi)"
    sizes: ClassVar[Mapping[str, str]] = MappingProxyType({"parameters": "ffn", "tokens": "queries"})

    def __init__(self, options: QFormerFusionOptions, *, inputs: Sequence[TokenShape], dim: int):
        super().__init__(options, inputs=inputs, dim=dim)
        encoders = len(inputs)
        alone = encoders == 1 or not options.share_weights
        self.ins = nn.ModuleList(
            nn.Identity() if alone and shape.dim == options.width else nn.Linear(shape.dim, options.width)
            for shape in inputs
        )
        self.query_tokens = nn.ParameterList(
            torch.randn(1, options.queries, options.hidden) * 0.02
            for _ in range(1 if options.share_queries else encoders)
        )
        self.qformers = nn.ModuleList(QFormer(options) for _ in range(1 if options.share_weights else encoders))
        self.outs = nn.ModuleList(nn.Linear(options.hidden, dim) for _ in inputs)

    @classmethod
    def describe(cls, options: QFormerFusionOptions, *, inputs: Sequence[TokenShape], dim: int) -> list[TokenShape]:
        """For each encoder as many tokens as there are queries, without a grid."""
        check_heads(hidden=options.hidden, heads=options.heads)
        return [TokenShape(tokens=options.queries, dim=dim) for _ in inputs]

    def fuse_one(self, index: int, values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images out dim"]:
        """Let the queries look at one encoder's tokens."""
        queries = self.query_tokens[0 if self.options.share_queries else index]
        qformer = self.qformers[0 if self.options.share_weights else index]
        found = qformer(queries.expand(len(values), -1, -1), self.ins[index](values))
        return self.outs[index](found)

    @classmethod
    def weights(cls, options: QFormerFusionOptions) -> WeightsPlace | None:
        """The checkpoint that ``weights`` names, if it is there."""
        if not options.weights:
            return None
        path = Path(options.weights)
        found = find_in_folder(path) if path.is_dir() else path if path.is_file() else None
        return WeightsPlace(path=found, install=f"put a BLIP-2 checkpoint in transformers' format at {path}")

    def load_pretrained(self) -> WeightsReport | None:
        """Start every Q-Former and set of queries from the checkpoint; the linear layers stay as they are."""
        if not self.options.weights:
            return None
        path = _weight_file(Path(self.options.weights))
        _check_config(path, self.options)
        state, others = _read_bridge(path)
        holder = nn.Module()
        holder.qformer, holder.query_tokens = self.qformers[0], self.query_tokens[0]
        report = load_strictly(holder, state, path=path, ignore=list(filter(TEXT_BRANCH.fullmatch, state)))
        for qformer in self.qformers[1:]:
            qformer.load_state_dict(self.qformers[0].state_dict())
        with torch.no_grad():
            for queries in list(self.query_tokens)[1:]:
                queries.copy_(self.query_tokens[0])
        return replace(report, unused=sorted([*report.unused, *others]))


def _weight_file(path: Path) -> Path:
    """The file of weights that ``path`` is, or the one in that folder."""
    if not path.is_dir():
        return path
    if (found := find_in_folder(path)) is None:
        raise WeightsError(f"no weights in {path}; expected one of {', '.join(WEIGHT_FILES)}")
    return found


def _check_config(path: Path, options: QFormerFusionOptions) -> None:
    """The number of heads shows in no weight, so it is read from the ``config.json`` beside them, if there is one."""
    config = path.parent / "config.json"
    if not config.is_file():
        return
    try:
        heads = json.loads(config.read_text(encoding="utf-8")).get("qformer_config", {}).get("num_attention_heads", 12)
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{config}: not a configuration of BLIP-2 ({type(error).__name__}: {error})") from None
    if heads != options.heads:
        raise WeightsError(f"{path}: its Q-Former has {heads} heads, the fusion {options.heads}. Set heads = {heads}")


def _read_bridge(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Q-Former and queries of a checkpoint, and the names of all other weights. One file is in memory at a time."""
    state: dict[str, Tensor] = {}
    others: list[str] = []
    for file in weight_files(path)[1:] or [path]:
        for key, value in read_weights(file).items():
            if key == "query_tokens" or key.startswith("qformer."):
                state[key] = value
            else:
                others.append(key)
    return state, others
