"""The tokenizer that goes with an export has no token that the embeddings lack."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from polyvex.data.prompt import IMAGE
from polyvex.errors import ParityError
from polyvex.export.tokens import PROBE, check_tokenizer, left_out, save_tokenizer, tokenizer_reasons
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions


@pytest.fixture
def tokenizer() -> Any:
    """259 tokens (256 bytes, 3 special ones), and two added ones: 259 and 260."""
    made = SmallLlama(SmallLlamaOptions()).tokenizer([])
    made.add_special_tokens({"additional_special_tokens": [IMAGE]})
    made.add_tokens(["square"])
    return made


def test_the_placeholder_is_left_out_if_the_vocabulary_is_full(tokenizer: Any, tmp_path: Path) -> None:
    assert tokenizer.convert_tokens_to_ids(IMAGE) == 259
    assert left_out(tokenizer, 259) == {259: IMAGE, 260: "square"}
    assert tokenizer_reasons(tokenizer, 259) == []
    assert save_tokenizer(tokenizer, tmp_path, 259) == [IMAGE, "square"]
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert len(found) == 259
    assert max(found.encode(f"a {IMAGE} square")) < 259
    assert found.decode(found.encode(f"a {IMAGE} square")) == f"a {IMAGE} square"
    assert found.encode(PROBE.replace("square", "round")) == tokenizer.encode(PROBE.replace("square", "round"))
    assert (found.eos_token_id, found.pad_token_id, found.bos_token_id) == (2, 0, 1)
    assert IMAGE not in (tmp_path / "tokenizer_config.json").read_text()


def test_only_what_is_beyond_the_embeddings_goes(tokenizer: Any, tmp_path: Path) -> None:
    assert save_tokenizer(tokenizer, tmp_path, 260) == ["square"]
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found.encode(f"a{IMAGE}")[-1] == found.convert_tokens_to_ids(IMAGE) == 259


def test_the_placeholder_stays_if_there_is_room(tokenizer: Any, tmp_path: Path) -> None:
    assert save_tokenizer(tokenizer, tmp_path, 261) == []
    check_tokenizer(tokenizer, tmp_path, 261)
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found.get_vocab() == tokenizer.get_vocab()
    assert IMAGE in found.all_special_tokens


def test_needed_tokens_beyond_the_embeddings_are_a_reason(tokenizer: Any) -> None:
    tokenizer.pad_token = "square"
    assert tokenizer_reasons(tokenizer, 257) == [
        f"the tokenizer has tokens that the embeddings' 257 rows lack: "
        f"{', '.join(sorted(['square', *[token for token, number in tokenizer.get_vocab().items() if number in (257, 258)]]))}. "  # noqa: E501
        f"Train with the tokenizer that belongs to the language model"
    ]
    assert tokenizer_reasons(tokenizer, 261) == []


def test_a_tokenizer_without_the_file_to_edit_is_a_reason(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    [said] = tokenizer_reasons(tokenizer, 259)
    assert said.startswith(f"{IMAGE}, square cannot be taken out of ")
    assert tokenizer_reasons(tokenizer, 261) == []


def test_a_tokenizer_that_splits_otherwise_is_found(tokenizer: Any, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, 261)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    told["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ParityError, match="splits a text into"):
        check_tokenizer(tokenizer, tmp_path, 261)


def test_a_token_too_many_is_found(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ParityError, match=rf"has {IMAGE}, square, expected nothing beyond the embeddings' 259 rows"):
        check_tokenizer(tokenizer, tmp_path, 259)
