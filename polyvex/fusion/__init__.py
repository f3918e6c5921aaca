"""Fusions: the tokens of several encoders to one sequence for the language model."""

from collections.abc import Mapping

from polyvex.fusion.base import Choice, Fusion, FusionOptions
from polyvex.fusion.channel import ChannelFusion
from polyvex.fusion.expert_choice import ExpertChoiceFusion
from polyvex.fusion.gated import GatedFusion
from polyvex.fusion.interleave import InterleaveFusion
from polyvex.fusion.mlp import MLPFusion
from polyvex.fusion.multi_qformer import MultiQFormerFusion
from polyvex.fusion.qformer import QFormerFusion
from polyvex.fusion.routed import RoutedFusion
from polyvex.fusion.soft_moe import SoftMoEFusion
from polyvex.fusion.sva import SVAFusion
from polyvex.hooks import hookimpl

__all__ = [
    "ChannelFusion",
    "Choice",
    "ExpertChoiceFusion",
    "Fusion",
    "FusionOptions",
    "GatedFusion",
    "InterleaveFusion",
    "MLPFusion",
    "MultiQFormerFusion",
    "QFormerFusion",
    "RoutedFusion",
    "SVAFusion",
    "SoftMoEFusion",
    "register_fusions",
]


@hookimpl
def register_fusions() -> Mapping[str, type[Fusion]]:
    """The fusions of the core."""
    return {
        "mlp": MLPFusion,
        "qformer": QFormerFusion,
        "multi_qformer": MultiQFormerFusion,
        "channel": ChannelFusion,
        "interleave": InterleaveFusion,
        "gated": GatedFusion,
        "sva": SVAFusion,
        "soft_moe": SoftMoEFusion,
        "expert_choice": ExpertChoiceFusion,
        "routed": RoutedFusion,
    }
