"""What fusion, splice and positions cost next to the forward of the language model behind them, and how that grows.

Two sizes: the quickstart's own model, and 802 visual tokens (MouSi's LayoutLMv3 + DINOv2 + CLIP, arXiv 2401.17221) at
the width of a 7B Llama, of which two layers are timed and scaled to 32. The fusion's matrix products alone are timed
too: what they take, no code can save. Then time and allocated memory for more tokens and more encoders. float32, no
gradient.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from polyvex.fusion.mlp import MLPFusion, MLPFusionOptions
from polyvex.positions import PositionAssigner, PositionOptions
from polyvex.positions.schemes import ShareRowCol
from polyvex.sequence import inputs_of
from polyvex.tokens import Grid, TokenShape, VisualSequence, VisualTokens

PLACEHOLDER = 3


@dataclass(frozen=True)
class Case:
    """A size: encoders as (rows, columns, width), patches per token, batch, text tokens, and the language model."""

    name: str
    encoders: list[tuple[int, int, int]]
    patches: list[int]
    batch: int
    text: int
    config: LlamaConfig
    layers: int


CASES = [
    Case(
        "quickstart: 2 layers of width 128, batch 64",
        [(8, 8, 384), (8, 8, 112)],
        [4, 4],
        64,
        24,
        LlamaConfig(
            vocab_size=300,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
        ),
        2,
    ),
    Case(
        "7B width: 2 layers timed, scaled to 32",
        [(14, 14, 768), (16, 16, 1024), (24, 24, 1024)],
        [2, 2, 1],
        1,
        64,
        LlamaConfig(
            vocab_size=32_000,
            hidden_size=4096,
            intermediate_size=11_008,
            num_hidden_layers=2,
            num_attention_heads=32,
            num_key_value_heads=32,
        ),
        32,
    ),
]


def measure(case: Case, rounds: int) -> tuple[float, float, float, int]:
    """Median seconds of the visual path, of its matrix products, and of the language model, and the visual tokens."""
    shapes = [TokenShape(tokens=r * c, dim=d, grid=Grid(rows=r, cols=c)) for r, c, d in case.encoders]
    dim = case.config.hidden_size
    fusion = MLPFusion(MLPFusionOptions(patches_per_token=case.patches), inputs=shapes, dim=dim).eval()
    scheme = PositionAssigner(ShareRowCol(PositionOptions(), layout=fusion.layout, dim=dim)).eval()
    lm = AutoModelForCausalLM.from_config(case.config, trust_remote_code=False).eval()
    parts = [VisualTokens.on_grid(torch.randn(case.batch, one.tokens, one.dim), one.grid) for one in shapes]
    ids = torch.tensor([[PLACEHOLDER] * fusion.layout.tokens + [5] * case.text] * case.batch)
    valid = torch.ones_like(ids, dtype=torch.bool)
    text = lm.get_input_embeddings()(ids)

    def visual() -> tuple[Tensor, Tensor]:
        values = scheme.embed(torch.cat(fusion.runs(parts), dim=1), fusion.layout)
        seen = VisualSequence(values=values.flatten(0, 1), layouts=fusion.layout)
        inputs = inputs_of(text, ids == PLACEHOLDER, valid, seen, fusion.layout)
        return inputs.embeds, scheme.assign(inputs.layout).ids

    embeds, positions = visual()

    def decoder() -> Tensor:
        return lm.model(inputs_embeds=embeds, position_ids=positions, attention_mask=valid.long()).last_hidden_state

    joined = [part.values.reshape(-1, m * part.values.shape[2]) for part, m in zip(parts, case.patches, strict=True)]
    between = torch.randn(case.batch * fusion.layout.tokens, dim)

    def products() -> None:
        for first, values in zip(fusion.first, joined, strict=True):
            first(values)
        fusion.rest[0](between)

    path, alone, lm_seconds = in_turns([visual, products, decoder], rounds)
    return path, alone, lm_seconds * case.layers / case.config.num_hidden_layers, fusion.layout.tokens


def grow(sides: list[int], rounds: int) -> tuple[float, float]:
    """Median seconds and allocated MiB of the visual path for one image of square grids of these sides, 1,024 wide."""
    shapes = [TokenShape(tokens=side * side, dim=1024, grid=Grid(rows=side, cols=side)) for side in sides]
    fusion = MLPFusion(MLPFusionOptions(), inputs=shapes, dim=1024).eval()
    scheme = PositionAssigner(ShareRowCol(PositionOptions(), layout=fusion.layout, dim=1024)).eval()
    parts = [VisualTokens.on_grid(torch.randn(1, one.tokens, one.dim), one.grid) for one in shapes]
    ids = torch.tensor([[PLACEHOLDER] * fusion.layout.tokens + [5] * 64])
    valid, text = torch.ones_like(ids, dtype=torch.bool), torch.randn(1, ids.shape[1], 1024)

    def visual() -> Tensor:
        values = scheme.embed(torch.cat(fusion.runs(parts), dim=1), fusion.layout)
        seen = VisualSequence(values=values.flatten(0, 1), layouts=fusion.layout)
        inputs = inputs_of(text, ids == PLACEHOLDER, valid, seen, fusion.layout)
        return scheme.assign(inputs.layout).ids

    [seconds] = in_turns([visual], rounds)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        visual()
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in recorded.events() or [])
    return seconds, allocated / 2**20


def in_turns(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each function, timed one after the other in every round."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for index, function in enumerate(functions):
            started = time.perf_counter()
            function()
            if number:  # the first round warms up
                times[index].append(time.perf_counter() - started)
    return [statistics.median(found) for found in times]


@torch.inference_mode()
def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {rounds} rounds")
    for case in CASES:
        torch.manual_seed(0)
        visual, products, decoder, tokens = measure(case, rounds)
        print(
            f"{case.name:44} {tokens:4} visual tokens   fusion + splice + positions {visual * 1000:8.2f} ms   "
            f"decoder layers {decoder * 1000:10.2f} ms   {visual / decoder:6.2%}   of which matrix products "
            f"{products / decoder:6.2%}"
        )
    print("growth, 1,024 wide: sides of grids, visual tokens, ms, ms per 1,000 tokens, MiB allocated, MiB per 1,000")
    for sides in ([16], [32], [64], [96], [32] * 2, [32] * 4, [32] * 6):
        seconds, memory = grow(sides, rounds)
        thousands = sum(side * side for side in sides) / 1000
        print(
            f"{sides!s:28} {thousands * 1000:6.0f} {seconds * 1000:9.2f} {seconds * 1000 / thousands:8.2f} "
            f"{memory:8.1f} {memory / thousands:8.2f}"
        )


if __name__ == "__main__":
    main()
