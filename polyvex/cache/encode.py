"""Fill the cache: encode each image once, ahead of training."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyvex.cache.changes import notes_on
from polyvex.cache.finite import kept_tokens
from polyvex.cache.images import ImageFiles, hash_images, image_paths
from polyvex.cache.place import Place, best_device, cache_root, places
from polyvex.cache.store import TokenStore
from polyvex.data.base import Sample
from polyvex.encoders.base import EncoderInputs, VisionEncoder
from polyvex.encoders.images import LIMITS, ImageLimits, open_image
from polyvex.encoders.inputs import run_encoder, stack_inputs, to_like
from polyvex.encoders.views import EncoderViews
from polyvex.encoders.weights import WeightsReport
from polyvex.errors import DataError
from polyvex.hooks.manager import Registries
from polyvex.progress import bar
from polyvex.recipe.samples import image_limits
from polyvex.recipe.schema import Recipe

SHARD = 256
"""Pictures per shard, each image or each of its tiles; also about what an interrupted run loses at most."""


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What was in the cache and what was added, per encoder by name, and what could not be read.

    ``weights`` has the account of the weights of each encoder that had to be loaded, ``notes`` why tokens of an
    encoder that are in the cache were not reused, or may be stale.
    """

    root: Path
    found: dict[str, int] = field(default_factory=dict)
    encoded: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    weights: dict[str, WeightsReport] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"cache: {self.root}"]
        for name, found in self.found.items():
            added = self.encoded[name]
            lines.append(
                f"  {name}: {found} images found in the cache" + (f", {added} encoded" if added else ", reused")
            )
        lines += [f"  ! {name}: {note}" for name, notes in self.notes.items() for note in notes]
        lines += [f"  weights of {name}: {report}" for name, report in self.weights.items()]
        lines += [f"  UNREADABLE {_named(path, reason)}" for path, reason in list(self.unreadable.items())[:5]]
        if len(self.unreadable) > 5:
            lines.append(f"  … and {len(self.unreadable) - 5} more unreadable images")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TokenCache:
    """The cached tokens that a recipe needs: one store per frozen encoder, the hash of each image path, and why an
    image cannot be read. ``weights_sha256`` is of each encoder's pretrained weights, also of those that learn."""

    stores: dict[str, TokenStore]
    files: ImageFiles
    unreadable: dict[str, str] = field(default_factory=dict)
    weights_sha256: dict[str, str | None] = field(default_factory=dict)
    limits: ImageLimits = LIMITS

    def tokens(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """Tokens [tiles tokens dim] of each encoder by name, image after image, in float32."""
        hashes = [self.files.hashes[path] for path in paths]
        return {name: store.read(hashes).float() for name, store in self.stores.items()}

    def has(self, path: str) -> bool:
        """Whether the image can be read, and every cached encoder's tokens of it are there."""
        image = self.files.hashes.get(path)
        known = image is not None and all(image in store for store in self.stores.values())
        return known and (bool(self.stores) or path not in self.unreadable)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a finished run brings along: its encoders by name, and the digests of the weights that they came from."""

    encoders: Mapping[str, Any]
    weights_sha256: Mapping[str, str | None]


def fill_cache(
    recipe: Recipe,
    registries: Registries,
    samples: Sequence[Sample],
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    known: Known | None = None,
    refresh: bool = False,
) -> tuple[TokenCache, CacheReport]:
    """Encode the images of ``samples`` that the cache lacks. Encoders are loaded only if there are any.

    Encoders that learn are left out: their tokens change from step to step.

    Args:
        known: encoders that are loaded already, from a run. Then no weight file is looked for, and images that
            cannot be read are only reported: their share is judged when a run is trained.
        refresh: encode all images again, also those in the cache.

    Raises:
        WeightsError: if an encoder is needed and its weights are missing, or if it gives tokens that are not finite.
        DataError: if more images are unreadable than the recipe allows.
        StorageError: if the disk is full, or the cache cannot be written to.
    """
    root = cache_root(folder)
    limits = image_limits(recipe)
    files = hash_images(image_paths(samples), limits)
    report = CacheReport(root=root, unreadable=dict(files.unreadable))
    stores = {}
    found = places(recipe, registries, root=root, weights=known.weights_sha256 if known else None)
    for table, place in zip(recipe.encoders, found.values(), strict=True):
        if table.tune != "frozen":
            continue
        if notes := notes_on(place):
            report.notes[place.encoder] = notes
        store = stores[place.encoder] = TokenStore(place.folder, place.about)
        missing = {path: image for path, image in files.hashes.items() if refresh or image not in store}
        report.found[place.encoder] = len(files.hashes) - len(missing)
        report.encoded[place.encoder] = 0
        if _any_readable(missing, report.unreadable, limits):
            if known:
                encoder = known.encoders[place.encoder]
            else:
                encoder, report.weights[place.encoder] = load_encoder(registries.encoders[table.use], table)
            if refresh:
                store.forget(missing.values())
            before = len(store)
            bad = _encode_missing(encoder, missing, store, recipe, place, progress=progress)
            report.encoded[place.encoder] = len(store) - before
            report.unreadable.update(bad)
        store.mark_used()
    if not stores:
        report.unreadable.update(_undecodable(files, limits))
    if known is None:
        check_unreadable(recipe, report.unreadable, total=len(files.hashes) + len(files.unreadable))
    digests = {name: place.about["weights_sha256"] for name, place in found.items()}
    cache = TokenCache(stores=stores, files=files, unreadable=report.unreadable, weights_sha256=digests, limits=limits)
    return cache, report


def _any_readable(images: dict[str, str], unreadable: dict[str, str], limits: ImageLimits) -> bool:
    """Whether an encoder is needed at all: those that cannot be decoded are missing in every run, and it is slow."""
    for path in images:
        try:
            open_image(path, limits)
        except DataError as error:
            unreadable[path] = str(error)
        else:
            return True
    return False


def _undecodable(files: ImageFiles, limits: ImageLimits) -> dict[str, str]:
    """Images that cannot be decoded: where no encoder is cached, nothing else would tell before the first step."""
    bad = {}
    for path in files.hashes:
        try:
            open_image(path, limits)
        except DataError as error:
            bad[path] = str(error)
    return bad


def check_unreadable(recipe: Recipe, unreadable: dict[str, str], *, total: int) -> None:
    """Stop if too many images cannot be read, or if the recipe wants to stop at the first one."""
    if not unreadable:
        return
    path, reason = next(iter(unreadable.items()))
    share = len(unreadable) / total
    limit = 0.0 if recipe.data.on_unreadable == "stop" else recipe.data.max_unreadable
    if share > limit:
        stop = recipe.data.on_unreadable == "stop"
        allowed = "data.on_unreadable is 'stop'" if stop else f"at most {limit:.1%} are allowed"
        way_out = "data.on_unreadable = 'skip' leaves them out" if stop else "raise data.max_unreadable"
        raise DataError(
            f"{len(unreadable)} of {total} images cannot be read ({share:.1%}), {allowed}. First: "
            f"{_named(path, reason)}. Mend the files, or {way_out}"
        )


def _named(path: str, reason: str) -> str:
    return reason if path in reason else f"{path}: {reason}"


def load_encoder(kind: type[VisionEncoder], options: Any) -> tuple[VisionEncoder, WeightsReport]:
    """Build an encoder with its pretrained weights, frozen, on the best device there is; and account for its keys."""
    encoder = kind(options)
    report = encoder.load_pretrained()
    return encoder.requires_grad_(False).eval().to(best_device()), report


def _encode_missing(
    encoder: VisionEncoder, missing: dict[str, str], store: TokenStore, recipe: Recipe, place: Place, *, progress: bool
) -> dict[str, str]:
    """Encode in batches, write in shards; return what could not be decoded. Ctrl-C keeps all whole shards."""
    unreadable: dict[str, str] = {}
    dtype = getattr(torch, recipe.cache.dtype)
    views = EncoderViews(kind=type(encoder), options=encoder.options, tiling=place.tiling)
    done: list[Encoded] = []

    def flush() -> None:
        if done:
            tokens = torch.cat([values for _, values in done])
            store.write([image for image, _ in done], tokens, [len(values) for _, values in done])
            done.clear()

    progress_bar = bar(total=len(missing), desc=f"encode {place.encoder}", unit="image", disable=not progress)
    with progress_bar, torch.inference_mode():
        try:
            for batch in _batches(encoder, views, missing, recipe, unreadable):
                for image, values in _run(encoder, batch, place, recipe.cache.batch_size):
                    done.append((image, kept_tokens(values, dtype, place, missing, image)))
                progress_bar.update(len(batch))
                if sum(len(values) for _, values in done) >= SHARD:
                    flush()
        finally:
            flush()
    return unreadable


Prepared = tuple[str, list[EncoderInputs]]
"""An image by its hash, and what the encoder looks at: one picture, or tiles."""

Encoded = tuple[str, Tensor]
"""An image by its hash, and its tokens [tiles tokens dim]."""


def _run(encoder: VisionEncoder, batch: list[Prepared], place: Place, size: int) -> list[Encoded]:
    """Encode all tiles of a batch, ``size`` at a time."""
    tiles = [tile for _, of_image in batch for tile in of_image]
    like = next(encoder.parameters(), torch.empty(0))
    values = [
        run_encoder(encoder, to_like(stack_inputs(tiles[start : start + size]), like), place.precision).values
        for start in range(0, len(tiles), size)
    ]
    if not values:
        return []
    split = torch.cat(values).split([len(of_image) for _, of_image in batch])
    return [(image, own) for (image, _), own in zip(batch, split, strict=True)]


def _batches(
    encoder: VisionEncoder, views: EncoderViews, missing: dict[str, str], recipe: Recipe, unreadable: dict[str, str]
) -> Iterator[list[Prepared]]:
    """Decode and transform ahead of the encoder, a batch at a time; each content once."""
    paths: dict[str, list[str]] = {}
    for path, image in missing.items():
        paths.setdefault(image, []).append(path)
    todo = list(paths.items())
    size, limits = recipe.cache.batch_size, image_limits(recipe)

    def prepare(item: tuple[str, list[str]]) -> Prepared | None:
        image, same = item
        try:
            return image, views.inputs(encoder, open_image(same[0], limits))
        except DataError as error:
            unreadable.update({path: str(error).replace(same[0], path) for path in same})
            return None

    with ThreadPoolExecutor(max_workers=2) as pool:
        chunks = [todo[start : start + size] for start in range(0, len(todo), size)]
        ahead = None
        for chunk in chunks:
            following = pool.map(prepare, chunk)
            if ahead is not None:
                yield _kept(ahead)
            ahead = following
        if ahead is not None:
            yield _kept(ahead)


def _kept(prepared: Iterator[Prepared | None]) -> list[Prepared]:
    return [item for item in prepared if item is not None]
