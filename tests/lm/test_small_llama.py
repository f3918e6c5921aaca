"""The small Llama: sizes, tokenizer, weights."""

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaForCausalLM, set_seed

from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions

TEXTS = ["Question: what color is the square?\nAnswer: red", "Question: where is the square?\nAnswer: left"]
SMALL = {"hidden_size": 32, "ffn_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "vocab_size": 300}


@pytest.fixture(scope="module")
def lm() -> SmallLlama:
    return SmallLlama(SmallLlamaOptions(**SMALL))


def test_it_is_transformers_own_class(lm: SmallLlama) -> None:
    assert isinstance(lm.load(lm.config()), LlamaForCausalLM)


def test_sizes_arrive(lm: SmallLlama) -> None:
    config = lm.config()
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (32, 64, 2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.vocab_size) == (2, 1, 300)
    assert config.rope_parameters["rope_theta"] == 10_000.0


def test_defaults_have_about_a_million_parameters() -> None:
    default = SmallLlama(SmallLlamaOptions())
    count = sum(parameter.numel() for parameter in default.load(default.config()).parameters())
    assert count == pytest.approx(1e6, rel=0.05)


def test_the_same_seed_gives_the_same_weights(lm: SmallLlama) -> None:
    models = []
    for _ in range(2):
        set_seed(3)
        models.append(lm.load(lm.config()).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_it_says_that_its_weights_are_random() -> None:
    assert SmallLlama.pretrained is False


@pytest.mark.parametrize(
    "text", ["what color is the square?", "Ünïcode 漢字 🙂", " spaces  \n\tand tabs ", "0123456789", ""]
)
def test_any_text_can_be_written_and_read_back(text: str, lm: SmallLlama) -> None:
    tokenizer = lm.tokenizer(TEXTS)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_fits_the_model(lm: SmallLlama) -> None:
    tokenizer = lm.tokenizer(TEXTS)
    assert len(tokenizer) <= 300
    assert max(tokenizer.get_vocab().values()) < 300


def test_special_tokens_are_those_of_the_model(lm: SmallLlama) -> None:
    tokenizer, config = lm.tokenizer(TEXTS), lm.config()
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)


def test_words_of_the_data_become_single_tokens(lm: SmallLlama) -> None:
    tokenizer = lm.tokenizer(TEXTS * 10)
    assert len(tokenizer.encode(" square", add_special_tokens=False)) == 1


def test_the_same_texts_give_the_same_tokenizer(lm: SmallLlama) -> None:
    assert lm.tokenizer(TEXTS).get_vocab() == lm.tokenizer(iter(TEXTS)).get_vocab()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 30, "heads": 4}, "hidden_size 30 must be an even multiple of heads 4"),
        # 12 / 4 = 3 is odd: rotary embeddings turn pairs.
        ({"hidden_size": 12, "heads": 4}, "hidden_size 12 must be an even multiple of heads 4"),
        ({"heads": 4, "kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
    ],
)
def test_heads_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SmallLlamaOptions(**options)
