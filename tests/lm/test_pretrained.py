"""Pretrained language models, from a directory that the test makes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from polyvex.errors import RecipeError
from polyvex.lm.pretrained import Pretrained, PretrainedOptions
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions

SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}


def save(model: PreTrainedModel, path: Path, **special: str | None) -> Pretrained:
    model.save_pretrained(path)
    tokenizer = SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["some text"])
    for name, value in special.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(path)
    return Pretrained(PretrainedOptions(checkpoint=str(path)))


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def test_logits_are_those_of_the_checkpoint(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = save(llama, tmp_path)
    ids = torch.randint(300, (2, 7))
    with torch.no_grad():
        assert torch.equal(lm.load(lm.config()).eval()(input_ids=ids).logits, llama(input_ids=ids).logits)


def test_half_precision_becomes_float32(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = save(llama.to(torch.bfloat16), tmp_path)
    assert {parameter.dtype for parameter in lm.load(lm.config()).parameters()} == {torch.float32}


def test_a_mixture_of_experts_can_be_loaded(tmp_path: Path) -> None:
    mixtral = MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=2)).eval()
    lm = save(mixtral, tmp_path)
    ids = torch.randint(300, (1, 7))
    with torch.no_grad():
        assert torch.allclose(
            lm.load(lm.config()).eval()(input_ids=ids).logits, mixtral(input_ids=ids).logits, atol=1e-5
        )


def test_a_missing_padding_token_becomes_end_of_sequence(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    tokenizer = save(llama, tmp_path, pad_token=None).tokenizer([])
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


def test_a_padding_token_is_kept(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    assert save(llama, tmp_path).tokenizer([]).pad_token == "<pad>"


def test_no_end_of_sequence_is_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = save(llama, tmp_path, eos_token=None)
    with pytest.raises(RecipeError, match="has no end-of-sequence token"):
        lm.tokenizer([])


def test_missing_weights_are_an_error_never_random(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = save(llama, tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(
        RecipeError, match=r"lacks weights: model\.layers\.1\.mlp\.up_proj\.weight\. It would start at random"
    ):
        lm.load(lm.config())


@pytest.mark.parametrize("what", ["config", "tokenizer"])
def test_no_such_checkpoint(what: str, tmp_path: Path) -> None:
    lm = Pretrained(PretrainedOptions(checkpoint=str(tmp_path / "none")))
    with pytest.raises(RecipeError) as caught:
        lm.config() if what == "config" else lm.tokenizer([])
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"[lm]: cannot load '{tmp_path / 'none'}'. Expected a directory written by save_pretrained, or a name on the "
        f"hub while it can be reached. transformers says: "
    )


def test_a_truncated_checkpoint_is_told(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = save(llama, tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RecipeError, match="cannot load"):
        lm.load(lm.config())


def test_it_says_that_its_weights_are_trained() -> None:
    assert Pretrained.pretrained is True


STRUCTURE = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2}


def test_a_structure_stands_in_for_a_configuration_that_is_not_here() -> None:
    lm = Pretrained(PretrainedOptions(checkpoint="nobody/nothing", structure=STRUCTURE))
    assert (lm.config().model_type, lm.config().hidden_size) == ("llama", 32)
    assert lm.missing() == "hf download nobody/nothing --revision main"
    with pytest.raises(RecipeError, match="cannot load 'nobody/nothing'"):
        lm.tokenizer([])


def test_a_structure_that_is_not_the_checkpoints_is_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path)
    lm = Pretrained(PretrainedOptions(checkpoint=str(tmp_path), structure={**STRUCTURE, "hidden_size": 33}))
    with pytest.raises(RecipeError, match=r"structure is not that of .*, where hidden_size is \d+"):
        lm.config()
    assert lm.missing() == ""


def test_a_structure_of_no_known_kind_is_refused() -> None:
    lm = Pretrained(PretrainedOptions(checkpoint="nobody/nothing", structure={"model_type": "lama"}))
    with pytest.raises(RecipeError, match="structure of model_type 'lama' cannot be"):
        lm.config()
    odd = Pretrained(PretrainedOptions(checkpoint="nobody/nothing", structure={**STRUCTURE, "hidden_size": 33}))
    with pytest.raises(RecipeError, match="The hidden size \\(33\\) is not a multiple"):
        odd.config()
