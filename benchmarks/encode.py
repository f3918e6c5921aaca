"""Encode throughput through polyvex against the library called bare, in turns, on the same weights and pixels.

"Through polyvex" is :func:`polyvex.encoders.inputs.run_encoder` on pixels that are ready, which is what the token cache
and the model call. "Bare" is the library's own forward, up to the same tokens; that they are the same is checked before
anything is timed. For information, the transform of one photograph is timed against the library's own too.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from encode_cases import CASES, Case
from PIL import Image
from torch import Tensor

from polyvex.encoders import VisionEncoder
from polyvex.encoders.inputs import run_encoder

BATCHES = (1, 16, 64)
LEAST, MOST = 5, 40
"""Rounds of one measurement; between them, as many as its budget of seconds allows."""

TOLERANCE = 1e-4
"""Tokens may differ by this part of the largest: a library may fuse what another call of it does not."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median seconds of ours and theirs; medians over the rounds of theirs / ours, by the clock and by CPU time."""

    ours: float
    theirs: float
    ratio: float
    cpu_ratio: float
    rounds: int


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], budget: float) -> Timing:
    """Time both in each round, every second one in the other order, so that neither always comes first.

    CPU time is counted as well, because other work on the machine lengthens the clock's time at random.
    """
    rounds: list[tuple[Taken, Taken]] = []
    started = time.perf_counter()
    for function in (ours, theirs):
        function()  # warm from here on
    while len(rounds) < LEAST or (len(rounds) < MOST and time.perf_counter() - started < budget):
        if len(rounds) % 2:
            second = _take(theirs)
            rounds.append((_take(ours), second))
        else:
            rounds.append((_take(ours), _take(theirs)))
    return Timing(
        ours=statistics.median(one[0] for one, _ in rounds),
        theirs=statistics.median(other[0] for _, other in rounds),
        ratio=statistics.median(other[0] / one[0] for one, other in rounds),
        cpu_ratio=statistics.median(other[1] / one[1] for one, other in rounds),
        rounds=len(rounds),
    )


Taken = tuple[float, float]
"""Seconds by the clock, and of CPU time of all threads."""


def _take(function: Callable[[], object]) -> Taken:
    clock, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - cpu


def check_same(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Refuse to compare the speed of different things.

    Raises:
        ValueError: if shapes or values differ.
    """
    if ours.shape != theirs.shape or float((ours - theirs).abs().max() / theirs.abs().max()) > TOLERANCE:
        raise ValueError(f"{what}: polyvex and the library give different values, {ours.shape} and {theirs.shape}")


def photograph() -> Image.Image:
    """A picture of 640 × 480 with coarse and fine structure."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, dtype=np.int16) + random.integers(-12, 13, (480, 640, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode_rows(case: Case, batches: list[int], budget: float) -> None:
    """Print a line of the table for each batch size."""
    for batch in batches:
        pixels = torch.randn(batch, 3, *case.size, generator=torch.Generator().manual_seed(batch))
        ours, theirs = partial(_through_polyvex, case.encoder, pixels), partial(case.bare, pixels)
        check_same(ours(), theirs(), case.name)
        taken = in_turns(ours, theirs, budget)
        print(
            f"| {case.name} | {batch} | {batch / taken.ours:.2f} | {batch / taken.theirs:.2f} {_ratios(taken)}",
            flush=True,
        )


def _through_polyvex(encoder: VisionEncoder, pixels: Tensor) -> Tensor:
    return run_encoder(encoder, pixels).values


def transform_row(case: Case, budget: float) -> None:
    """Print a line of the table, if the library has a transform of its own."""
    if case.transform is None:
        return
    image, transform = photograph(), case.transform
    check_same(case.encoder.transform(image), transform(image), f"transform of {case.name}")
    taken = in_turns(partial(case.encoder.transform, image), partial(transform, image), budget)
    print(f"| {case.name} | {taken.ours * 1000:.2f} ms | {taken.theirs * 1000:.2f} ms {_ratios(taken)}", flush=True)


def _ratios(taken: Timing) -> str:
    return f"| {taken.ratio:.3f} | {taken.cpu_ratio:.3f} | {taken.rounds} |"


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--budget", type=float, default=15.0, help="seconds for each measurement, if 5 rounds fit")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        with torch.inference_mode(False):
            cases = [CASES[name](Path(folder)) for name in arguments.cases]
        print("\n| encoder | batch | images/s polyvex | images/s bare | ratio | by CPU time | rounds |")
        print("|---|---|---|---|---|---|---|")
        for case in cases:
            encode_rows(case, arguments.batches, arguments.budget)
        print("\n| transform | polyvex | library | ratio | by CPU time | rounds |")
        print("|---|---|---|---|---|---|")
        for case in cases:
            transform_row(case, arguments.budget / 5)


if __name__ == "__main__":
    main()
