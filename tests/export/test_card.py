"""The README of an export states facts, and nothing of the machine that trained."""

from polyvex.export import FAMILIES
from polyvex.export.card import card
from polyvex.export.weights import in_family

from .conftest import Mixture

RECIPE = {
    "name": "doors",
    "lm": {"use": "pretrained", "checkpoint": "/home/me/model", "revision": "main"},
    "moe": {"num_experts": 4, "router": {"use": "top_k", "k": 2}},
    "data": {"use": "jsonl", "folder": "/home/me/data"},
}


def text_of(mixture: Mixture, *, copied: list[int], dropped: list[str]) -> str:
    made = in_family(mixture("llama"), FAMILIES["mixtral"])
    return card(RECIPE, FAMILIES["mixtral"], made, copied=copied, dropped=dropped, gap=2.04e-6, scale=12.345)


def test_facts(mixture: Mixture) -> None:
    text = text_of(mixture, copied=[1, 3], dropped=["<image>"])
    for fact in (
        "# doors",
        "language model alone: encoders, fusion and position scheme are not here",
        "family: `mixtral` (`MixtralForCausalLM` of transformers)",
        "experts: 4 in a layer, 2 for each token; layers 1, 3 had none in the run, and have equal copies",
        "by at most 2.0e-06, where the largest is 12.3",
        "since the embeddings lack it: `<image>`",
        'use = "pretrained"',
        "num_experts = 4",
        "[moe.router]",
    ):
        assert fact in text


def test_nothing_without_reason(mixture: Mixture) -> None:
    text = text_of(mixture, copied=[], dropped=[])
    for word in ("/home/me", "data", "had none", "left out", "{", "None"):
        assert word not in text.split("```python")[0] + text.split("```toml")[1]
