"""Routers: which experts a token goes to, and with what weights. See ``moe/routing.py`` for the letters."""

from polyvex.moe.routers.base import Router, RouterOptions
from polyvex.moe.routers.expert_choice import ExpertChoiceOptions, ExpertChoiceRouter
from polyvex.moe.routers.noisy import NoisyTopKOptions, NoisyTopKRouter
from polyvex.moe.routers.soft import SoftOptions, SoftRouter
from polyvex.moe.routers.top_k import SwitchOptions, SwitchRouter, TopKOptions, TopKRouter

__all__ = [
    "ExpertChoiceOptions",
    "ExpertChoiceRouter",
    "NoisyTopKOptions",
    "NoisyTopKRouter",
    "Router",
    "RouterOptions",
    "SoftOptions",
    "SoftRouter",
    "SwitchOptions",
    "SwitchRouter",
    "TopKOptions",
    "TopKRouter",
]
