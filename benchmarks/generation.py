"""Generation: an upcycled SmolLM2 with our experts against transformers' own Mixtral of the same weights.

Both are the same model: the second is what ``polyvex export --to mixtral`` writes. They answer with the same tokens, in
turns, as medians over rounds.
"""

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from polyvex_smollm2 import SmolLM2, SmolLM2Options
from transformers import AutoModelForCausalLM

from polyvex.export.families import FAMILIES
from polyvex.export.weights import in_family
from polyvex.moe import TopKRouter
from polyvex.moe.options import MoEOptions
from polyvex.moe.routers import TopKOptions
from polyvex.moe.upcycle import install_experts

PROMPT, ANSWER = 32, 32
"""Tokens that are read, and tokens that are written."""


def models(experts: int) -> dict[str, Any]:
    component = SmolLM2(SmolLM2Options())
    lm = component.load(component.config()).eval()
    torch.manual_seed(0)
    router = (TopKRouter, TopKOptions(k=2, init_std=1.0))
    install_experts(lm, MoEOptions(num_experts=experts, layers="dense"), router, copy=True, context=None)
    with tempfile.TemporaryDirectory() as folder:
        in_family(lm, FAMILIES["mixtral"]).save_pretrained(folder)
        loader: Any = AutoModelForCausalLM
        return {
            "polyvex": lm,
            "transformers": loader.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval(),
        }


def generate(lm: Any, ids: torch.Tensor) -> torch.Tensor:
    told = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False, "pad_token_id": 0}
    return lm.generate(ids, attention_mask=torch.ones_like(ids), **told)


@torch.inference_mode()
def main() -> None:
    """Print tokens per second for several batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--experts", type=int, default=4)
    options = parser.parse_args()
    found = models(options.experts)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds")
    for batch in (1, 4, 16):
        ids = torch.randint(1000, 40_000, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
        said = {name: generate(lm, ids) for name, lm in found.items()}  # warms up too
        same = (said["polyvex"] == said["transformers"]).float().mean().item()
        times: dict[str, list[float]] = {name: [] for name in found}
        for number in range(options.rounds):
            for name in list(found)[:: 1 if number % 2 else -1]:
                started = time.perf_counter()
                generate(found[name], ids)
                times[name].append(time.perf_counter() - started)
        speed = {name: batch * ANSWER / statistics.median(taken) for name, taken in times.items()}
        ratio = statistics.median(
            theirs / ours for ours, theirs in zip(times["polyvex"], times["transformers"], strict=True)
        )
        told = ", ".join(f"{name} {value:.1f} tokens/s" for name, value in speed.items())
        print(f"batch {batch:2}: {told}, ratio {ratio:.3f}; {same:.0%} of the tokens are the same")


if __name__ == "__main__":
    main()
