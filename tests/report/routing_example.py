"""Routing of made-up runs, in the form in which ``polyvex routing`` writes it: numbers that hang together."""

from typing import Any

import numpy as np

SOURCES = ("text", "dinov2-s", "efficientnet-lite0")


def example(
    layers: int = 2, experts: int | list[int] = 4, *, sources: tuple[str, ...] = SOURCES, tokens: int = 300
) -> dict[str, Any]:
    """A run whose text and visual tokens prefer different experts; of each source ``tokens`` tokens, of text twice.

    Args:
        experts: of every layer, or of each.
    """
    random = np.random.default_rng(0)
    sizes = [experts] * layers if isinstance(experts, int) else experts
    counts = {source: 2 * tokens if source == "text" else tokens for source in sources}
    of = np.repeat(np.arange(len(sources)), list(counts.values()))
    chosen, tables = [], []
    lean = {size: random.normal(0, 0.7, [len(sources), size]) for size in set(sizes)}
    for at, size in enumerate(sizes):
        lean[size] = 0.8 * lean[size] + random.normal(0, 0.5, lean[size].shape)
        logits = lean[size][of] + random.gumbel(0, 0.7, [len(of), size])
        if size > 2 and at % 3 == 1:
            logits[:, size - 1] = -1e9
        probs = np.exp(logits - logits.max(1, keepdims=True))
        chosen.append(logits.argmax(1))
        tables.append(_layer(2 * at, probs / probs.sum(1, keepdims=True), of, sources))
    return {
        "run": "runs/x",
        "split": "test",
        "samples": 12,
        "skipped": 0,
        "sources": list(sources),
        "tokens": counts,
        "layers": tables,
        "pathways": _pathways(np.stack(chosen, 1), sizes, of, sources),
        "pictures": [],
    }


def _masks(of: np.ndarray, sources: tuple[str, ...]) -> dict[str, np.ndarray]:
    text = np.array([sources[one] == "text" for one in of], dtype=bool)
    each = {source: of == index for index, source in enumerate(sources) if source != "text"}
    return {"all": np.ones(len(of), bool), "text": text, "visual": ~text, **each}


def _layer(layer: int, probs: np.ndarray, of: np.ndarray, sources: tuple[str, ...]) -> dict[str, Any]:
    size = probs.shape[1]
    order = probs.argsort(1)[:, ::-1][:, :2]
    entropy = -(probs * np.log(probs + 1e-12)).sum(1) / np.log(size)
    masks = _masks(of, sources)

    def by(values: Any) -> dict[str, Any]:
        return {key: values(mask) if mask.any() else values(mask) * 0 for key, mask in masks.items()}

    def shares(picked: np.ndarray) -> np.ndarray:
        return np.bincount(picked.ravel(), minlength=size) / max(picked.size, 1)

    load = by(lambda mask: shares(order[mask]))
    return {
        "name": f"layers.{layer}.mlp",
        "layer": layer,
        "num_experts": size,
        "experts_per_token": 2.0,
        "load": {key: value.tolist() for key, value in load.items()},
        "first": {key: value.tolist() for key, value in by(lambda mask: shares(order[mask][:, 0])).items()},
        "entropy": by(lambda mask: float(entropy[mask].sum() / max(mask.sum(), 1))),
        "confidence": by(lambda mask: float(probs[mask].max(1).sum() / max(mask.sum(), 1))),
        "dropped": by(lambda mask: 0.0),
        "apart": {
            key: float(abs(value - load["all"]).sum() / 2) * bool(masks[key].any())
            for key, value in load.items()
            if key != "all"
        },
        "dead": [expert for expert in range(size) if load["all"][expert] == 0],
    }


def _pathways(chosen: np.ndarray, sizes: list[int], of: np.ndarray, sources: tuple[str, ...]) -> dict[str, Any]:
    masks = {key: mask for key, mask in _masks(of, sources).items() if key in ("all", "text", "visual")}
    found: dict[str, Any] = {"layers": [2 * at for at in range(len(sizes))], "tokens": len(of)}
    found["common"] = {key: _common(chosen[mask]) for key, mask in masks.items()}
    found["flows"] = {
        key: [_flow(chosen[mask], at, sizes) for at in range(len(sizes) - 1)] for key, mask in masks.items()
    }
    found["components"] = {key: _components(chosen[mask], max(sizes)) for key, mask in masks.items()}
    return found


def _common(paths: np.ndarray) -> list[dict[str, Any]]:
    if not len(paths):
        return []
    unique, counts = np.unique(paths, axis=0, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:10]
    return [{"path": unique[one].tolist(), "share": float(counts[one] / len(paths))} for one in best]


def _flow(paths: np.ndarray, at: int, sizes: list[int]) -> list[list[float]]:
    table = np.zeros([sizes[at], sizes[at + 1]])
    np.add.at(table, (paths[:, at], paths[:, at + 1]), 1 / max(len(paths), 1))
    return table.tolist()


def _components(paths: np.ndarray, experts: int) -> list[list[float]]:
    if not len(paths):
        return []
    rows = np.linalg.svd(paths - paths.mean(0), full_matrices=False)[2][:12]
    low, high = rows.min(), rows.max()
    return ((rows - low) / max(high - low, 1e-9) * (experts - 1)).tolist()
