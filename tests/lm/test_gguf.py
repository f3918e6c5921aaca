"""GGUF files: a small Llama that the test writes as llama.cpp's converter does."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from polyvex.errors import RecipeError
from polyvex.lm.gguf import Gguf, GgufOptions

HEADS, KV_HEADS = 4, 2
CHAT = "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}<s>answer: "
WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab"]
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    return LlamaForCausalLM(config).eval()


def paired(weight: Tensor, heads: int) -> Tensor:
    """Rows of rotary heads as llama.cpp keeps them: the two halves of a head in turns."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def write(path: Path, model: LlamaForCausalLM, *, leave_out: str = "") -> Path:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT)
    for name, value in model.state_dict().items():
        short = name.removeprefix("model.").removesuffix(".weight")
        parts = short.split(".", 2)
        known = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
        target = known.get(short) or f"blk.{parts[1]}.{NAMES[parts[2]]}"
        rows = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(target.rpartition(".")[2])
        if target != leave_out:
            writer.add_tensor(f"{target}.weight", (paired(value, rows) if rows else value).numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def component(path: Path) -> Gguf:
    return Gguf(GgufOptions(file=str(path)))


@pytest.fixture(scope="module")
def file(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


def test_logits_are_those_of_the_model_that_was_written(llama: LlamaForCausalLM, file: Path) -> None:
    lm = component(file)
    config = lm.config()
    assert config.rope_parameters["rope_theta"] == 5000.0
    assert (config.max_position_embeddings, config.num_key_value_heads) == (64, KV_HEADS)
    loaded = lm.load(config).eval()
    ids = torch.randint(len(WORDS), (2, 9))
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, llama(input_ids=ids).logits, atol=1e-5)


def test_what_is_loaded_is_a_plain_model_that_trains_and_is_saved(file: Path, tmp_path: Path) -> None:
    lm = component(file)
    model = lm.load(lm.config())
    assert getattr(model.config, "quantization_config", None) is None
    model(input_ids=torch.tensor([[1, 4, 5]]), labels=torch.tensor([[1, 4, 5]])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_its_tokenizer_and_chat_template(file: Path) -> None:
    tokenizer = component(file).tokenizer([])
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer.tokenize("ab cab") == ["ab", "Ġ", "c", "ab"]
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert asked == "<s>user: ab</s><s>answer: "


def test_what_is_told_may_be_changed_by_the_caller(file: Path) -> None:
    lm = component(file)
    lm.config().hidden_size = 7
    lm.tokenizer([]).add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert lm.config().hidden_size == 32
    assert "<image>" not in lm.tokenizer([]).get_vocab()


def test_a_file_that_is_written_anew_is_read_anew(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = component(write(tmp_path / "a.gguf", llama))
    assert lm.config().num_hidden_layers == 2
    shorter = LlamaForCausalLM(LlamaConfig(**{**llama.config.to_dict(), "num_hidden_layers": 1}))
    write(tmp_path / "a.gguf", shorter)
    assert lm.config().num_hidden_layers == 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_told_by_its_configuration(share: float, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        RecipeError, match=r"cut\.gguf cannot be read as a GGUF file of a language model; is it whole\?"
    ):
        component(cut).config()


def test_another_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model at all, but long enough for a header")
    with pytest.raises(RecipeError, match="GGUF"):
        component(tmp_path / "text.gguf").config()


def test_a_file_without_a_tensor_is_refused(llama: LlamaForCausalLM, tmp_path: Path) -> None:
    lm = component(write(tmp_path / "less.gguf", llama, leave_out="blk.1.ffn_up"))
    with pytest.raises(RecipeError, match=r"lacks weights: model\.layers\.1\.mlp\.up_proj\.weight"):
        lm.load(lm.config())


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    lm = component(tmp_path / "none.gguf")
    assert lm.missing() == f"put the file at {tmp_path / 'none.gguf'}"
    for ask in (lm.config, lambda: lm.tokenizer([])):
        with pytest.raises(RecipeError, match="put the file at"):
            ask()


def test_without_the_library_its_command_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvex.lm.gguf.find_spec", lambda _: None)
    assert component(file).missing() == 'pip install "polyvex[gguf]"'
