"""Linear probes: what a linear classifier reads from an encoder's frozen tokens, against what it reads from raw pixels.

Tokens are averaged over the picture, or over a 4 × 4 grid, then standardised; C of the logistic regression is chosen
by cross-validation within the training pictures, for raw pixels as for every encoder. All of them see the same
pictures, so differences are paired.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from probe_pictures import Pictures, digits, shapes, words
from torch.nn import functional as F

from polyvex.cache.encode import load_encoder
from polyvex.encoders.inputs import run_encoder, stack_inputs
from polyvex.hooks.manager import load_registries

BATCH = 32
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for C, the inverse of the penalty."""

POOLS = {"mean": 1, "4x4": 4}
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "probes.json"


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set of pictures, how many are trained on, and what sees them.

    ``raw`` are sides of raw pixels, encoders' image sizes are divided by ``scale``, and those of ``fresh`` see the
    pictures a second time with the weights that they are built with.
    """

    pictures: Callable[[int, int], Pictures]
    train: tuple[int, ...]
    test: int
    raw: tuple[int, ...]
    scale: int = 1
    fresh: tuple[str, ...] = ()


SETS = {
    "digits": Set(pictures=digits, train=(200, 1000), test=797, raw=(8, 32), scale=2),
    "shapes": Set(
        pictures=shapes, train=(200, 1000), test=500, raw=(32, 64), scale=2, fresh=("efficientnet-lite0", "dinov2-s")
    ),
    "words": Set(pictures=words, train=(200, 600), test=400, raw=(32, 64)),
}

ENCODERS: dict[str, dict[str, Any]] = {
    "patchify": {"image_size": 64, "patch_size": 8, "dim": 192},
    "random-features": {"image_size": 64, "depth": 3, "dim": 128},
    "efficientnet-lite0": {"image_size": 128},
    "ocr-regions": {"image_size": 256},
    "dinov2-s": {"image_size": 112},
}
"""Sizes that give each of them an 8 × 8 grid; halved for digits and shapes, which are small pictures, to 4 × 4."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One classifier: what it was trained on, and which test pictures it got right."""

    task: str
    train: int
    seen: str
    pool: str
    width: int
    strength: float
    right: list[bool]


def raw_pixels(images: list[Image.Image], side: int) -> np.ndarray:
    """Pictures at ``side`` × ``side`` RGB pixels, bicubic, as one row of values each."""
    small = [image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for image in images]
    return np.stack([np.asarray(image, dtype=np.float32).reshape(-1) / 255 for image in small])


@torch.inference_mode()
def encode(
    name: str, options: dict[str, Any], images: list[Image.Image], *, fresh: bool = False
) -> dict[str, np.ndarray]:
    """An encoder's tokens, one row per picture, for each way of pooling; with its real weights unless ``fresh``."""
    kind = load_registries().encoders[name]
    torch.manual_seed(0)
    made = kind.Options(**options)
    encoder = kind(made).eval() if fresh else load_encoder(kind, made)[0]
    grid = kind.describe(encoder.options).shape.grid
    assert grid is not None
    found: dict[str, list[np.ndarray]] = {pool: [] for pool in POOLS}
    for start in range(0, len(images), BATCH):
        inputs = stack_inputs([encoder.transform(image) for image in images[start : start + BATCH]])
        values = run_encoder(encoder, inputs).values
        maps = values.unflatten(1, (grid.rows, grid.cols)).permute(0, 3, 1, 2)
        for pool, side in POOLS.items():
            found[pool].append(F.adaptive_avg_pool2d(maps, side).flatten(1).numpy())
    return {pool: np.concatenate(parts) for pool, parts in found.items()}


def classify(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, strengths: tuple[float, ...] = STRENGTHS
) -> tuple[np.ndarray, float]:
    """Predictions of a logistic regression for ``test``, and its C, chosen by threefold cross-validation."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    # All components are kept: a rotation, which the penalty does not see. Where there are more values than pictures
    # it leaves no more columns than pictures, so that wide inputs cost no more than narrow ones.
    prepare = make_pipeline(StandardScaler(), PCA(svd_solver="full"))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": list(strengths)}, cv=folds)
    with threadpool_limits(1):  # matrices are so small that threads only wait for each other, on shared cores for long
        search.fit(prepare.fit_transform(train.astype(np.float64)), labels)
        return search.predict(prepare.transform(test.astype(np.float64))), float(search.best_params_["C"])


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    z = 1.959964
    middle = (right + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * np.sqrt(right * (total - right) / total + z * z / 4)
    return middle - half, middle + half


def difference(one: np.ndarray, other: np.ndarray, *, draws: int = 10_000) -> tuple[float, float, float]:
    """How much more often ``one`` is right than ``other``, with a 95 % interval of bootstrap over the test pictures."""
    gains = one.astype(float) - other.astype(float)
    drawn = np.random.default_rng(0).integers(0, len(gains), (draws, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), (0.025, 0.975))
    return float(gains.mean()), float(low), float(high)


def probe(pictures: Pictures, sizes: tuple[int, ...], features: dict[tuple[str, str], np.ndarray]) -> list[Row]:
    """A classifier for every question, number of training pictures, and kind of features.

    Args:
        features: one row per picture, by what was seen and how it was pooled.
    """
    rows = []
    for task, labels in pictures.labels.items():
        asked = pictures.asked[task]
        tested = np.flatnonzero(asked & (np.arange(len(labels)) >= pictures.train))
        for size in sizes:
            trained = np.flatnonzero(asked & (np.arange(len(labels)) < size))
            for (seen, pool), values in features.items():
                guessed, strength = classify(values[trained], labels[trained], values[tested])
                right = (guessed == labels[tested]).tolist()
                rows.append(
                    Row(
                        task=task,
                        train=len(trained),
                        seen=seen,
                        pool=pool,
                        width=values.shape[1],
                        strength=strength,
                        right=right,
                    )
                )
    return rows


def best_raw(rows: list[Row], like: Row) -> Row:
    """The raw pixels that did best at the test itself, which favours them."""
    same = [row for row in rows if (row.task, row.train) == (like.task, like.train) and row.seen == "raw pixels"]
    return max(same, key=lambda row: sum(row.right))


def told(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows with accuracies and intervals, for the table and the file."""
    found = []
    for row in rows:
        low, high = wilson(sum(row.right), len(row.right))
        gain, gain_low, gain_high = difference(np.array(row.right), np.array(best_raw(rows, row).right))
        facts = {key: value for key, value in asdict(row).items() if key != "right"}
        facts |= {"right": sum(row.right), "tested": len(row.right), "accuracy": sum(row.right) / len(row.right)}
        facts |= {"low": low, "high": high, "gain": gain, "gain_low": gain_low, "gain_high": gain_high}
        found.append(facts)
    return found


def table(facts: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [
        "| task | training pictures | seen | pooled | values | accuracy | 95 % interval | over the best raw pixels |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in facts:
        gain = f"{one['gain']:+.1%} ({one['gain_low']:+.1%} to {one['gain_high']:+.1%})"
        lines.append(
            f"| {one['task']} | {one['train']} | {one['seen']} | {one['pool']} | {one['width']} "
            f"| {one['accuracy']:.1%} | {one['low']:.1%} to {one['high']:.1%} "
            f"| {'' if one['seen'] == 'raw pixels' else gain} |"
        )
    return "\n".join(lines)


def features_of(chosen: Set, pictures: Pictures, seconds: dict[str, float]) -> dict[tuple[str, str], np.ndarray]:
    """Raw pixels and the tokens of all encoders, with the CPU time that each took."""
    features = {("raw pixels", f"{side}x{side}"): raw_pixels(pictures.images, side) for side in chosen.raw}
    for name in (*ENCODERS, *(f"{name}, fresh weights" for name in chosen.fresh)):
        started, (known, _, fresh) = time.process_time(), name.partition(", ")
        options = {**ENCODERS[known], "image_size": ENCODERS[known]["image_size"] // chosen.scale}
        found = encode(known, options, pictures.images, fresh=bool(fresh))
        features |= {(name, pool): values for pool, values in found.items()}
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
        print(f"{name}: {len(pictures.images)} pictures", file=sys.stderr, flush=True)
    return features


def main() -> None:
    """Print the table, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for name in arguments.sets:
        chosen = SETS[name]
        pictures = chosen.pictures(max(chosen.train), chosen.test)
        rows += probe(pictures, chosen.train, features_of(chosen, pictures, seconds))
    facts = told(rows)
    libraries = ("polyvex", "torch", "scikit-learn", "timm", "onnxruntime", "numpy", "pillow")
    machine = {
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in libraries},
        "cpu_seconds": round(time.process_time()),
        "cpu_seconds_encoding": {name: round(spent) for name, spent in seconds.items()},
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"run": machine, "rows": facts}, indent=1) + "\n", encoding="utf-8")
    print(table(facts))
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
