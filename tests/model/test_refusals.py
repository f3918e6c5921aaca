"""What the model would get silently wrong is refused, or made right."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from polyvex.assemble import Built
from polyvex.errors import ContractError
from polyvex.model import PolyvexConfig, PolyvexForConditionalGeneration

Make = Callable[..., Built]


def two_rows(built: Built) -> dict[str, torch.Tensor]:
    """Two questions of different lengths about one picture each, padded on the left."""
    pictures = [Image.linear_gradient("L").rotate(30 * turn).resize((20, 30)) for turn in (1, 2)]
    texts = [built.processor.prompt(text) for text in ("what?", "what color is the square over there?")]
    return built.processor(pictures, texts)


@pytest.mark.parametrize("scheme", ["sequential", "share_all", "share_row", "share_row_col"])
def test_a_static_cache_says_what_a_growing_one_says(scheme: str, shared_built: Make) -> None:
    # A model that was built and not loaded had two configurations of its language model, and padding was read.
    built = shared_built(f"positions.use={scheme}")
    inputs = two_rows(built)
    growing = built.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    static = built.model.generate(**inputs, max_new_tokens=6, do_sample=False, cache_implementation="static")
    assert torch.equal(growing, static)


def test_attention_that_cuts_shared_positions_is_refused_however_it_was_switched_on(make_built: Make) -> None:
    built = make_built()
    built.model.lm.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ContractError, match="attention is 'flash_attention_2', but flash attention cuts a row"):
        built.model(**two_rows(built))


def test_the_class_does_not_offer_it() -> None:
    assert PolyvexForConditionalGeneration._supports_flash_attn is False


def test_pixels_and_tokens_at_once_are_refused(shared_built: Make) -> None:
    built = shared_built()
    inputs = two_rows(built)
    with pytest.raises(ContractError, match="both pixel_values and encoder_tokens"):
        built.model(**inputs, encoder_tokens={name: torch.zeros(2, 1, 1) for name in built.model.encoder_names})


def test_a_batch_without_images_gives_the_connector_a_gradient_of_zero(make_built: Make) -> None:
    built = make_built("positions.use=share_row_col")
    model = built.model.train()
    model.requires_grad_(False)
    for part in (model.fusion, model.positions):
        part.requires_grad_(True)
    ids = torch.tensor([[1, 5, 6, 7]])
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = [parameter.grad for part in (model.fusion, model.positions) for parameter in part.parameters()]
    assert gradients
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_checkpointing_that_cuts_the_auxiliary_gradient_is_refused(make_built: Make) -> None:
    model = make_built(experts=True).model
    with pytest.raises(ContractError, match="use_reentrant"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing


def test_the_tokenizers_end_ends_answers_whatever_the_language_model_says(make_built: Make) -> None:
    built = make_built()
    assert built.model.generation_config.eos_token_id == built.processor.tokenizer.eos_token_id
    assert built.model.generation_config.pad_token_id == built.processor.tokenizer.pad_token_id


def test_learned_positions_do_not_count_padding(make_built: Make) -> None:
    # Rotary positions only know distances; GPT-2's show at once whether padding was counted.
    built = make_built()
    torch.manual_seed(0)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(8)
    config = PolyvexConfig.from_dict({**built.model.config.to_dict(), "text_config": lm.config.to_dict()})
    model = PolyvexForConditionalGeneration(config, lm=lm).eval()
    model.encoders.load_state_dict(built.model.encoders.state_dict())
    short, both = built.processor(None, "why?"), built.processor(None, ["why?", "why is that so, and not otherwise?"])
    assert not both["attention_mask"][0].all()
    alone = model.generate(**short, max_new_tokens=5, do_sample=False, eos_token_id=None)
    batch = model.generate(**both, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert alone[0, -5:].tolist() == batch[0, -5:].tolist()


def test_packed_texts_are_refused_where_layers_look_back_only_so_far() -> None:
    from types import SimpleNamespace

    from polyvex.model.attention import packed_mask

    config = SimpleNamespace(sliding_window=4, _attn_implementation="sdpa")
    config.get_text_config = lambda: config
    lm, documents = SimpleNamespace(config=config), torch.tensor([[0, 0, 0, 1, 1]])
    with pytest.raises(ContractError, match="sliding window"):
        packed_mask(lm, documents, documents >= 0, torch.float32)
    packed_mask(lm, documents[:, :4], documents[:, :4] >= 0, torch.float32)  # nothing is out of sight


@pytest.mark.parametrize("text", [" and now another view: ", "<image>", "</s>"])
def test_the_text_between_runs_is_plain_text_of_any_length(text: str, make_built: Callable[..., Built]) -> None:
    built = make_built("fusion.separator=text", f"fusion.separator_text='{text}'")
    ids = built.model.config.separator_ids
    tokenizer = built.processor.tokenizer
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {built.processor.image_token_id, tokenizer.eos_token_id}
    assert built.model.layout.tokens == 12 + len(ids)
    batch = built.processor.question("why?", [Image.new("RGB", (32, 32))])
    assert int((batch["input_ids"] == built.processor.image_token_id).sum()) == 12 + len(ids)
    with torch.no_grad():
        visual = built.model.see(batch["pixel_values"], None)
        assert torch.isfinite(built.model(**batch).logits).all()
    between = (built.model.layout.source < 0).nonzero()[:, 0]
    assert torch.equal(visual.values[between], built.model.lm.get_input_embeddings().weight[ids])
