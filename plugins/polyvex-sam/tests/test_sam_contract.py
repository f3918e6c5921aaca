"""The encoders keep their contract, with the facts of the real ones, and refuse what cannot work."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from polyvex_sam import SamEncoder, SamOptions, SamVitB, SamVitH, SamVitL, register_encoders
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from polyvex.encoders import Box
from polyvex.testing import check_encoder

KINDS = [SamVitB, SamVitL, SamVitH]

CASES: dict[str, dict[str, Any]] = {
    "neck": {"image_size": 64},
    "blocks": {"image_size": 64, "features": "blocks"},
    "two blocks": {"image_size": 64, "features": "blocks", "layers": [2, 0]},
    "kept padding": {"image_size": 64, "padding": "keep"},
}


def test_the_entry_point_offers_the_encoders() -> None:
    [point] = entry_points(group="polyvex", name="sam")
    offered = {"sam-vit-b": SamVitB, "sam-vit-l": SamVitL, "sam-vit-h": SamVitH}
    assert point.load().register_encoders() == register_encoders() == offered


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import polyvex_sam, sys; polyvex_sam.SamVitB.describe(polyvex_sam.SamOptions()); "
        "print([name for name in ('segment_anything', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("case", CASES)
def test_contract_with_fresh_weights(case: str, tiny: type[SamEncoder]) -> None:
    check_encoder(tiny, SamOptions(**CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_contract_with_weights_from_a_checkpoint(case: str, tiny: type[SamEncoder], checkpoint: Path) -> None:
    check_encoder(tiny, SamOptions(**CASES[case], weights=str(checkpoint)), pretrained=True)


@pytest.mark.parametrize("kind", KINDS)
def test_contract_of_the_real_ones_cut_after_a_block(kind: type[SamEncoder]) -> None:
    check_encoder(kind, SamOptions(image_size=64, features="blocks", layers=0))


@pytest.mark.parametrize(
    ("kind", "features", "dim", "parameters"),
    [
        (SamVitB, "neck", 256, 89_670_912),
        (SamVitB, "blocks", 768, 88_883_456),
        (SamVitL, "neck", 256, 308_278_272),
        (SamVitL, "blocks", 1024, 307_425_280),
        (SamVitH, "neck", 256, 637_026_048),
        (SamVitH, "blocks", 1280, 636_107_520),
    ],
)
def test_facts_at_full_size_are_those_of_segment_anythings_network(
    kind: type[SamEncoder], features: Any, dim: int, parameters: int
) -> None:
    options = SamOptions(features=features)
    facts = kind.describe(options)
    with torch.device("meta"):
        encoder, pixels = kind(options), torch.empty(1, 3, 1024, 1024)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tokens = encoder(pixels).values
    assert (facts.shape.tokens, facts.shape.dim, str(facts.shape.grid)) == (4096, dim, "64x64")
    assert tokens.shape == (1, 4096, dim)
    assert facts.parameters == sum(value.numel() for value in encoder.parameters()) == parameters
    assert facts.flops == counter.get_total_flops()
    assert facts.image_size == (1024, 1024)
    assert str(facts.license) == "Apache-2.0"


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_keys_and_shapes_are_those_that_segment_anything_builds(name: str) -> None:
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        wanted = sam_model_registry[name]().image_encoder
        encoder = register_encoders()[f"sam-{name.replace('_', '-')}"](SamOptions())
    shapes = [
        {key: value.shape for key, value in network.state_dict().items()} for network in (wanted, encoder.network)
    ]
    assert shapes[0] == shapes[1]
    windows = [[block.window_size for block in network.blocks] for network in (wanted, encoder.network)]
    heads = [[block.attn.num_heads for block in network.blocks] for network in (wanted, encoder.network)]
    assert windows[0] == windows[1]
    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    ("options", "dim", "blocks"),
    [
        ({"layers": -1}, 768, 12),
        ({"layers": 11}, 768, 12),
        ({"layers": -2}, 768, 11),
        ({"layers": [2, 5, 8]}, 3 * 768, 9),
        ({"layers": [8, 2]}, 2 * 768, 9),
    ],
)
def test_later_blocks_and_the_neck_are_not_built(options: dict[str, Any], dim: int, blocks: int) -> None:
    with torch.device("meta"):
        encoder = SamVitB(SamOptions(features="blocks", **options))
    assert SamVitB.describe(encoder.options).shape.dim == dim
    assert len(encoder.network.blocks) == blocks
    assert not any(key.startswith("network.neck") for key in encoder.state_dict())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 1000}, "image_size is 1000; expected a multiple of 16, such as 992 or 1008"),
        ({"layers": -2}, "layers is -2, but the neck was trained behind the last block alone"),
        ({"layers": [11, 10]}, r"layers is \[11, 10\], but the neck was trained behind the last block alone"),
        ({"features": "blocks", "layers": 12}, "layers names 12, but sam-vit-b has 12 blocks: 0 to 11, or -1 to -12"),
        ({"features": "blocks", "layers": [0, -13]}, "layers names -13, but sam-vit-b has 12 blocks"),
        ({"features": "blocks", "layers": [3, -9]}, r"layers is \[3, -9\], which reads a block twice"),
    ],
)
def test_options_that_cannot_be_are_refused_with_a_way_out(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SamVitB.describe(SamOptions(**options))
    with pytest.raises(ValueError, match=said):
        SamVitB(SamOptions(**options))


@pytest.mark.parametrize(
    "options",
    [{"image_size": 0}, {"image_size": "1024"}, {"features": "mask"}, {"layers": []}, {"padding": True}, {"depth": 3}],
)
def test_options_of_another_type_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SamOptions.model_validate(options)


@pytest.mark.parametrize("layers", [-1, 11, [-1], [11]])
def test_the_neck_may_be_asked_for_with_the_last_block(layers: Any) -> None:
    assert SamVitB.describe(SamOptions(layers=layers)) == SamVitB.describe(SamOptions())


def test_padding_is_told_unless_it_is_kept() -> None:
    assert SamVitB.content(SamOptions(), (600, 800)) == Box(top=0, left=0, height=768, width=1024)
    assert SamVitB.content(SamOptions(padding="keep"), (600, 800)) == Box(top=0, left=0, height=1024, width=1024)


def test_the_tables_of_the_readme_are_right() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    shapes = []
    for [table] in (block["encoders"] for block in tables):
        kind = register_encoders()[table.pop("use")]
        shapes.append(kind.describe(kind.Options(**table)).shape)
    assert [(shape.tokens, shape.dim) for shape in shapes] == [(4096, 256), (1024, 5120)]
    for name, option in SamOptions.model_fields.items():
        default = str(option.default) if isinstance(option.default, int) else f'"{option.default}"'
        assert f"\n| `{name}` | {default} | " in text
