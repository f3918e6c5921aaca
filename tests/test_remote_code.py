"""Which files of a checkpoint ask to run code."""

import json
from pathlib import Path

import pytest

from polyvex.remote_code import GENERATE, remote_code


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "mine.Config"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModelForCausalLM": "mine.Model"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Tokenizer", None]}}),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoImageProcessor": "mine.Images"}}}),
    ],
)
def test_files_that_name_code_are_found(name: str, content: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content))
    assert remote_code(tmp_path) == [name]


def test_code_for_generate_is_found(tmp_path: Path) -> None:
    (tmp_path / "custom_generate").mkdir()
    (tmp_path / GENERATE).write_text("print('run')")
    assert remote_code(tmp_path) == [GENERATE]


def test_other_and_damaged_files_name_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "note": "auto_map"}')
    (tmp_path / "vocab.json").write_text("[1, ")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert remote_code(tmp_path) == []
    assert remote_code(tmp_path / "nowhere") == []
