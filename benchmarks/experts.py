"""Experts: ours, transformers' Mixtral block with each of its backends, and dense products of the same arithmetic.

All are timed in turns, forward alone and with the backward pass, as medians over rounds. Ours is the whole layer,
router included, as theirs is. The bound is two matrix products over as many rows as there are assignments, by one
expert's weights: what no mixture of experts can be quicker than. batched_mm copies weights for each assignment, and is
left out where that would take more than a gigabyte.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from polyvex.moe import TopKRouter
from polyvex.moe.experts import GatedExperts
from polyvex.moe.layer import MoEFeedForward
from polyvex.moe.routers import TopKOptions

Shape = tuple[int, int, int, int, int]
SHAPES: list[Shape] = [
    (576, 1536, 4, 2, 512),
    (576, 1536, 4, 2, 2048),
    (576, 384, 32, 4, 1024),
    (128, 256, 8, 2, 4096),
    (2048, 8192, 8, 2, 256),
]
"""Width, inner width, experts, experts per token, tokens."""

GIGABYTE = 2**30


def ours(shape: Shape, backend: str) -> nn.Module:
    dim, hidden, count, k, _ = shape
    router = TopKRouter(TopKOptions(k=k, init_std=1.0), dim=dim, num_experts=count)
    experts = GatedExperts(num_experts=count, dim=dim, hidden=hidden, act=F.silu, backend=backend)
    return MoEFeedForward(router=router, experts=experts)


def theirs(shape: Shape, backend: str, like: nn.Module) -> nn.Module:
    dim, hidden, count, k, _ = shape
    config = MixtralConfig(hidden_size=dim, intermediate_size=hidden, num_local_experts=count, num_experts_per_tok=k)
    config._experts_implementation = backend
    block = MixtralSparseMoeBlock(config)
    state = like.state_dict()
    with torch.no_grad():
        block.gate.weight.copy_(state["router.weight"])
        block.experts.gate_up_proj.copy_(state["experts.gate_up_proj"])
        block.experts.down_proj.copy_(state["experts.down_proj"])
    return block


class Dense(nn.Module):
    """The products alone, over all assignments at once."""

    def __init__(self, shape: Shape):
        super().__init__()
        dim, hidden, _, self.k, _ = shape
        self.gate_up = nn.Parameter(torch.randn(2 * hidden, dim) * 0.02)
        self.down = nn.Parameter(torch.randn(dim, hidden) * 0.02)

    def forward(self, values: Tensor) -> Tensor:
        rows = values.reshape(-1, values.shape[-1]).repeat(self.k, 1)
        gate, up = F.linear(rows, self.gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down)


def contestants(shape: Shape) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    dim, hidden, _, k, tokens = shape
    mine = ours(shape, "auto")
    found = {"auto": mine}
    for backend in ("loop", "grouped_mm"):
        found[backend] = ours(shape, backend)
        found[backend].load_state_dict(mine.state_dict())
    names = ["eager", "grouped_mm"]
    if tokens * k * 3 * dim * hidden * 4 < GIGABYTE:
        names.append("batched_mm")
    for backend in names:
        found[f"their {backend}"] = theirs(shape, backend, mine)
    return {**found, "bound": Dense(shape)}


def medians(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(rounds + 1):
        first = number % len(names)  # another one each time, since what ran before leaves the caches to the next
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            functions[name]()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def forward(module: nn.Module, values: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            module(values)

    return run


def both(module: nn.Module, values: Tensor) -> Callable[[], object]:
    def run() -> None:
        module.zero_grad(set_to_none=True)
        inputs = values.clone().requires_grad_()
        module(inputs).sum().backward()

    return run


def main() -> None:
    """Print a line for each shape and pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), help="only this one, by its number from 0")
    options = parser.parse_args()
    rounds = options.rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {rounds} rounds, ms")
    for shape in SHAPES if options.shape is None else [SHAPES[options.shape]]:
        modules = contestants(shape)
        values = torch.randn(1, shape[4], shape[0])
        said = [modules[name](values) for name in modules if name != "bound"]
        assert all(torch.allclose(one, said[0], rtol=1e-3, atol=1e-3 * said[0].abs().max().item()) for one in said)
        for what, kind in (("forward", forward), ("both", both)):
            found = medians({name: kind(module, values) for name, module in modules.items()}, rounds)
            best = min(time for name, time in found.items() if name.startswith("their"))
            told = "  ".join(f"{name} {time * 1000:.1f}" for name, time in found.items())
            ratios = f"auto/their best {found['auto'] / best:.2f}  bound/auto {found['bound'] / found['auto']:.2f}"
            print(f"{shape} {what:8} {told}  | {ratios}")


if __name__ == "__main__":
    main()
