"""The contract, at a small size, with and without words."""

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from polyvex_layoutlmv3 import LayoutLMv3, LayoutLMv3Base, LayoutLMv3Large, LayoutLMv3Options, Structure
from polyvex_layoutlmv3 import register_encoders as registered
from transformers import LayoutLMv3Model

from polyvex.testing import check_encoder

TINY = Structure(
    dim=32, layers=3, heads=2, hidden=48, coordinate_dim=6, shape_dim=4, vocabulary=60, positions=40, token_types=1
)


class Tiny(LayoutLMv3):
    summary: ClassVar[str] = "a small one"
    structure: ClassVar[Structure] = TINY
    repository: ClassVar[str] = "nobody/tiny"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What transformers saves, and a tokenizer of single letters."""
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]
    LayoutLMv3Model(TINY.config(image_size=64, depth=3, text=True)).save_pretrained(tmp_path)
    listed = ", ".join(f'"{letter}": {index}' for index, letter in enumerate(letters))
    (tmp_path / "vocab.json").write_text(f"{{{listed}}}", encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return tmp_path


CASES: dict[str, dict[str, Any]] = {
    "pixels": {},
    "two layers": {"layers": [0, 1]},
    "words": {"words": "ocr", "max_tokens": 12, "layers": 1, "detector_side": 32},
    "another size": {"image_size": 80},
}


@pytest.mark.parametrize("case", CASES)
def test_contract(case: str, checkpoint: Path) -> None:
    options = LayoutLMv3Options(**{"image_size": 64, **CASES[case]}, weights=str(checkpoint))
    check_encoder(Tiny, options, pretrained=True)


def test_contract_of_fresh_weights(checkpoint: Path) -> None:
    check_encoder(Tiny, LayoutLMv3Options(image_size=64))


def test_names() -> None:
    assert registered() == {"layoutlmv3-base": LayoutLMv3Base, "layoutlmv3-large": LayoutLMv3Large}


@pytest.mark.parametrize(("kind", "dim", "depth"), [(LayoutLMv3Base, 768, 12), (LayoutLMv3Large, 1024, 24)])
def test_facts_of_the_real_ones(kind: type[LayoutLMv3], dim: int, depth: int) -> None:
    facts = kind.describe(LayoutLMv3Options())
    assert (facts.shape.tokens, facts.shape.dim, str(facts.shape.grid)) == (196, dim, "14x14")
    assert str(facts.license) == "CC-BY-NC-SA-4.0 (NOT for commercial use)"
    # By hand: attention 4 d² + 4 d, feed-forward 8 d² + 5 d, two norms 4 d; around the layers a convolution 768 d + d,
    # class token and 197 positions, two norms, and relative positions for 12 or 16 heads.
    layer = 12 * dim**2 + 13 * dim
    assert facts.parameters == depth * layer + 769 * dim + dim + 197 * dim + 4 * dim + (32 + 2 * 64) * dim // 64
    with_text = kind.describe(LayoutLMv3Options(words="ocr")).parameters - facts.parameters
    coordinates = kind.structure.coordinate_dim, kind.structure.shape_dim
    assert 4 * coordinates[0] + 2 * coordinates[1] == dim
    # Words, one type, 514 positions and a norm; each of x, y, height and width has a table of 1024.
    assert with_text == (50_265 + 1 + 514 + 2) * dim + 2 * 1024 * sum(coordinates)


def test_facts_are_told_without_transformers() -> None:
    """Importing it takes longer than all the rest of a listing."""
    told = "import sys; from polyvex_layoutlmv3 import *\n"
    told += "LayoutLMv3Large.describe(LayoutLMv3Options(words='ocr')); LayoutLMv3Large.weights(LayoutLMv3Options())\n"
    told += "print([name for name in sys.modules if name == 'transformers'])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_costs_grow_with_words() -> None:
    alone, more = (
        Tiny.describe(LayoutLMv3Options(image_size=64, words=kind, max_tokens=30)) for kind in ("none", "ocr")
    )
    assert alone.flops is not None
    assert more.flops is not None
    assert more.flops > alone.flops
