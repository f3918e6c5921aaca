"""Filling the cache: each image once, the same tokens as encoded afresh, and a word about what could not be read."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polyvex_basics
import pytest
import torch
from PIL import Image
from torch import Tensor

from polyvex.cache import CacheReport, TokenCache, encode, fill_cache
from polyvex.data import Sample
from polyvex.encoders import WeightsReport
from polyvex.encoders.images import open_image
from polyvex.errors import DataError, WeightsError
from polyvex.hooks.manager import Registries
from polyvex.recipe import Recipe
from polyvex.recipe.samples import read_split

Fill = Callable[..., tuple[TokenCache, CacheReport]]


@pytest.fixture
def samples(
    tiny_recipe: Callable[..., Recipe], registries: Registries, tiny_data: Path, tmp_path: Path
) -> list[Sample]:
    """The training samples, with their pictures in a folder of this test."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    recipe = tiny_recipe(data={"use": "jsonl", "folder": str(folder)})
    return list(read_split(recipe, registries, "train"))


@pytest.fixture
def fill(tiny_recipe: Callable[..., Recipe], registries: Registries, samples: list[Sample]) -> Fill:
    def run(*overrides: str, of: Sequence[Sample] = samples, **options: Any) -> tuple[TokenCache, CacheReport]:
        return fill_cache(tiny_recipe(*overrides), registries, of, progress=False, **options)

    return run


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that patchify has encoded."""
    sizes: list[int] = []
    plain = polyvex_basics.Patchify.forward

    def spy(self: Any, pixels: Tensor) -> Any:
        sizes.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(polyvex_basics.Patchify, "forward", spy)
    return sizes


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_cached_tokens_are_freshly_encoded_ones(
    batch_size: int, fill: Fill, samples: list[Sample], tiny_recipe: Callable[..., Recipe], registries: Registries
) -> None:
    cache, _ = fill(f"cache.batch_size={batch_size}")
    paths = list(dict.fromkeys(path for sample in samples for path in sample.images))
    cached = cache.tokens(paths)
    for table in tiny_recipe().encoders:
        encoder, _ = encode.load_encoder(registries.encoders[table.use], table)
        with torch.no_grad():
            fresh = torch.cat([encoder(encoder.transform(open_image(path))[None]).values for path in paths])
        assert torch.allclose(cached[table.use], fresh, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_is_close_and_comes_back_as_float32(
    dtype: str, tolerance: float, fill: Fill, samples: list[Sample]
) -> None:
    path = samples[0].images[0]
    exact, rounded = fill()[0].tokens([path]), fill(f"cache.dtype={dtype}")[0].tokens([path])
    for name, value in rounded.items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, exact[name], atol=tolerance, rtol=tolerance)
    assert not torch.equal(rounded["patchify"], exact["patchify"])


def test_tokens_come_in_the_order_of_the_paths(fill: Fill, samples: list[Sample]) -> None:
    cache, _ = fill()
    first, second = samples[0].images[0], samples[2].images[0]
    both = cache.tokens([second, first, second])["patchify"]
    assert torch.equal(both, torch.cat([cache.tokens([path])["patchify"] for path in (second, first, second)]))


def test_each_image_is_encoded_once(fill: Fill, encoded: list[int]) -> None:
    # 18 pictures, two questions each.
    _, report = fill()
    assert sum(encoded) == 18
    assert report.encoded == {"patchify": 18, "color-grid": 18}
    assert report.found == {"patchify": 0, "color-grid": 0}


def test_copies_of_one_picture_are_encoded_once(fill: Fill, samples: list[Sample], encoded: list[int]) -> None:
    path = Path(samples[0].images[0])
    copy = path.with_name("copy.png")
    shutil.copy(path, copy)
    cache, _ = fill(of=[samples[0], Sample(id="x", question="q", answer="a", images=(str(copy),))])
    assert sum(encoded) == 1
    assert torch.equal(cache.tokens([str(copy)])["patchify"], cache.tokens([str(path)])["patchify"])


def test_the_second_time_no_encoder_is_loaded(fill: Fill, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    encoded.clear()
    monkeypatch.setattr(encode, "load_encoder", lambda kind, options: pytest.fail("an encoder was loaded"))
    _, report = fill()
    assert encoded == []
    assert report.found == {"patchify": 18, "color-grid": 18}


def test_only_what_is_missing_is_encoded(fill: Fill, samples: list[Sample], encoded: list[int]) -> None:
    fill(of=samples[:10])  # 5 pictures
    encoded.clear()
    _, report = fill()
    assert sum(encoded) == 13
    assert (report.found["patchify"], report.encoded["patchify"]) == (5, 13)


def test_a_changed_picture_is_encoded_again(fill: Fill, samples: list[Sample], encoded: list[int]) -> None:
    before = fill()[0].tokens([samples[0].images[0]])
    encoded.clear()
    Image.new("RGB", (32, 32), "white").save(samples[0].images[0])
    after = fill()[0].tokens([samples[0].images[0]])
    assert sum(encoded) == 1
    assert not torch.equal(before["patchify"], after["patchify"])


def test_the_cache_is_where_the_environment_says(fill: Fill, cache_folder: Path) -> None:
    _, report = fill()
    assert report.root == cache_folder
    assert len(list(cache_folder.iterdir())) == 2


def test_the_cache_is_where_the_argument_says(fill: Fill, cache_folder: Path, tmp_path: Path) -> None:
    _, report = fill(folder=tmp_path / "elsewhere")
    assert report.root == tmp_path / "elsewhere"
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2
    assert list(cache_folder.iterdir()) == []


def test_a_damaged_shard_is_encoded_again_with_a_warning(fill: Fill, samples: list[Sample], cache_folder: Path) -> None:
    paths = [samples[0].images[0]]
    before = fill()[0].tokens(paths)
    (shard,) = cache_folder.glob("patchify-*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged; its images are encoded again"):
        cache, report = fill()
    assert report.encoded == {"patchify": 18, "color-grid": 0}
    assert torch.equal(cache.tokens(paths)["patchify"], before["patchify"])


def test_stopped_half_way_it_keeps_what_was_encoded(
    fill: Fill, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    plain = polyvex_basics.Patchify.forward

    def stop_at_the_third_batch(self: Any, pixels: Tensor) -> Any:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return plain(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(polyvex_basics.Patchify, "forward", stop_at_the_third_batch)
        with pytest.raises(KeyboardInterrupt):
            fill("cache.batch_size=4")
    encoded.clear()
    _, report = fill("cache.batch_size=4")
    assert (report.found["patchify"], report.encoded["patchify"]) == (8, 10)
    assert sum(encoded) == 10


def test_killed_half_way_it_keeps_whole_shards(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    # A killed process runs no `finally`, so only shards that were full count.
    class Killed(BaseException):
        pass

    monkeypatch.setattr(encode, "SHARD", 8)
    plain = encode.TokenStore.write
    written: list[int] = []

    def write_once(self: Any, images: Sequence[str], values: Tensor, tiles: Sequence[int]) -> None:
        if written:
            raise Killed
        written.append(len(images))
        plain(self, images, values, tiles)

    with monkeypatch.context() as patch:
        patch.setattr(encode.TokenStore, "write", write_once)
        with pytest.raises(Killed):
            fill("cache.batch_size=4")
    _, report = fill("cache.batch_size=4")
    assert (report.found["patchify"], report.encoded["patchify"]) == (8, 10)


def test_shards_hold_no_more_than_asked(fill: Fill, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setattr(encode, "SHARD", 8)
    fill("cache.batch_size=4")
    assert len(list(cache_folder.glob("patchify-*/*.safetensors"))) == 3  # 8 + 8 + 2


def test_tiles_count_for_a_shard(fill: Fill, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setattr(encode, "SHARD", 20)
    fill("cache.batch_size=4", "encoders.0.tiling={grids=[[2,2]]}")  # 5 pictures of each of 18 images
    assert len(list(cache_folder.glob("patchify-*/*.safetensors"))) == 5  # 4 images each, 2 in the last


@pytest.fixture
def broken(samples: list[Sample]) -> dict[str, str]:
    """Two pictures that cannot be read, with the beginning of the reason."""
    lost, damaged = samples[0].images[0], samples[2].images[0]
    Path(lost).unlink()
    Path(damaged).write_bytes(b"<html>")
    return {lost: "no image at ", damaged: f"cannot read the image {damaged}: "}


def test_unreadable_images_are_skipped_counted_and_named(fill: Fill, broken: dict[str, str]) -> None:
    cache, report = fill("data.max_unreadable=0.5")
    assert report.encoded == {"patchify": 16, "color-grid": 16}
    assert set(report.unreadable) == set(broken)
    for path, reason in broken.items():
        assert report.unreadable[path].startswith(reason)
        assert not cache.has(path)


@pytest.mark.parametrize(("allowed", "stops"), [("0.12", False), ("0.1", True), ("0.0", True)])
def test_more_than_the_limit_stops(allowed: str, stops: bool, fill: Fill, broken: dict[str, str]) -> None:
    # 2 of 18 are 11.1 %.
    if not stops:
        fill(f"data.max_unreadable={allowed}")
        return
    with pytest.raises(DataError) as caught:
        fill(f"data.max_unreadable={allowed}")
    text = str(caught.value)
    assert text.startswith(f"2 of 18 images cannot be read (11.1%), at most {float(allowed):.1%} are allowed. First: ")
    assert text.endswith("Mend the files, or raise data.max_unreadable")
    assert any(path in text for path in broken)


def test_stop_means_the_first_one(fill: Fill, broken: dict[str, str]) -> None:
    told = r"data\.on_unreadable is 'stop'\. First: .*data\.on_unreadable = 'skip' leaves them out"
    with pytest.raises(DataError, match=told):
        fill("data.on_unreadable=stop", "data.max_unreadable=1.0")


def test_stop_does_not_stop_where_all_is_well(fill: Fill) -> None:
    fill("data.on_unreadable=stop", "data.max_unreadable=0.0")


def test_equal_broken_files_are_all_counted(fill: Fill, samples: list[Sample]) -> None:
    # Failed downloads are often equal, byte by byte: empty, or one error page many times.
    paths = list(dict.fromkeys(path for sample in samples for path in sample.images))
    for path in paths[:9]:
        Path(path).write_bytes(b"")
    _, report = fill("data.max_unreadable=1.0")
    assert len(report.unreadable) == 9
    with pytest.raises(DataError, match="9 of 18 images cannot be read"):
        fill("data.max_unreadable=0.1")


@pytest.mark.parametrize("limit", ["data.max_image_pixels=1023", "data.max_image_bytes=50"])
def test_images_above_the_recipes_limits_are_left_out_cached_or_not(limit: str, fill: Fill) -> None:
    # 32 x 32 pixels are 1024. What is left out must not depend on what an earlier run has cached.
    for _ in range(2):
        cache, report = fill(limit, "data.max_unreadable=1.0")
        assert (len(report.unreadable), len(cache.files.hashes)) == (18, 0)
        fill()


def test_a_pipe_among_the_images_is_left_out(fill: Fill, samples: list[Sample]) -> None:
    path = Path(samples[0].images[0])
    path.unlink()
    os.mkfifo(path)
    _, report = fill("data.max_unreadable=0.1")
    assert list(report.unreadable) == [str(path)]


def test_an_image_is_there_when_every_encoder_has_it(fill: Fill, samples: list[Sample]) -> None:
    cache, _ = fill()
    path = samples[0].images[0]
    assert cache.has(path)
    assert not cache.has("/no/such.png")
    cache.stores["patchify"]._rows.clear()
    assert not cache.has(path)


def test_the_report_says_reused_or_encoded() -> None:
    report = CacheReport(
        root=Path("/cache"),
        found={"a": 5, "b": 2},
        encoded={"a": 0, "b": 3},
        unreadable={f"{number}.png": "broken" for number in range(7)},
        weights={"b": WeightsReport(source="b.pth", sha256="0" * 64, loaded=["x"], reshaped=["y"])},
    )
    assert str(report) == (
        "cache: /cache\n"
        "  a: 5 images found in the cache, reused\n"
        "  b: 2 images found in the cache, 3 encoded\n"
        "  weights of b: b.pth: 1 loaded, 1 reshaped (y); sha256 000000000000\n"
        + "".join(f"  UNREADABLE {number}.png: broken\n" for number in range(5))
        + "  … and 2 more unreadable images"
    )


def test_samples_without_images_need_no_encoder(fill: Fill) -> None:
    cache, report = fill(of=[Sample(id="a", question="q", answer="a")])
    assert report.encoded == {"patchify": 0, "color-grid": 0}
    assert cache.files.hashes == {}


def test_for_unreadable_images_alone_no_encoder_is_loaded(
    fill: Fill, broken: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = fill("data.max_unreadable=0.5")
    monkeypatch.setattr(encode, "load_encoder", lambda kind, options: pytest.fail("an encoder was loaded"))
    _, second = fill("data.max_unreadable=0.5")
    assert second.unreadable == first.unreadable
    assert second.encoded == {"patchify": 0, "color-grid": 0}


def test_tokens_that_are_no_numbers_are_not_kept(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    # Damaged weights: training would stop at a loss that is NaN, and nobody could tell from what.
    plain = polyvex_basics.Patchify.forward

    def damaged(self: Any, pixels: Tensor) -> Any:
        tokens = plain(self, pixels)
        tokens.values[-1, 0, 0] = float("nan")
        return tokens

    with monkeypatch.context() as patch:
        patch.setattr(polyvex_basics.Patchify, "forward", damaged)
        with pytest.raises(WeightsError, match=r"encoder patchify gives tokens of .*png that are not finite \(NaN or"):
            fill()
    cache, _ = fill()
    assert all(bool(tokens.isfinite().all()) for tokens in cache.tokens(list(cache.files.hashes)).values())


def test_tokens_too_large_for_the_disk_are_not_kept(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = polyvex_basics.Patchify.forward

    def large(self: Any, pixels: Tensor) -> Any:
        tokens = plain(self, pixels)
        tokens.values[...] = 70_000.0  # float16 ends at 65,504
        return tokens

    monkeypatch.setattr(polyvex_basics.Patchify, "forward", large)
    with pytest.raises(WeightsError, match=r"not finite as cache\.dtype = 'float16': up to 7e\+04\. Take another"):
        fill('cache.dtype="float16"')
    fill('cache.dtype="bfloat16"')
