"""The model's own rules: one way in for pixels and cached tokens, frozen encoders, loud refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from polyvex.assemble import Built
from polyvex.data.batches import pad_left
from polyvex.errors import ContractError

Make = Callable[..., Built]


def inputs_of(built: Built, images: int = 1) -> dict[str, Any]:
    row = built.processor.prompts.ids(built.processor.prompt("what?", images=images))
    return pad_left([row], 0)


def pixels_of(built: Built, images: int = 1) -> dict[str, torch.Tensor]:
    pictures = [Image.effect_noise((20, 30), 90).convert("RGB") for _ in range(images)]
    return built.processor.pixels(pictures)


@pytest.mark.parametrize("images", [1, 2])
def test_pixels_and_their_cached_tokens_give_the_same_logits(images: int, shared_built: Make) -> None:
    built = shared_built()
    pixels = pixels_of(built, images)
    tokens = {name: built.model.encoders[name](pixels[name]).values for name in built.model.encoder_names}
    inputs = inputs_of(built, images)
    from_pixels = built.model(**inputs, pixel_values=pixels).logits
    assert torch.equal(from_pixels, built.model(**inputs, encoder_tokens=tokens).logits)


def test_encoders_are_run_in_the_order_of_the_recipe(
    make_built: Make, tiny_tables: Callable[[], dict[str, Any]]
) -> None:
    built = make_built(encoders=tiny_tables()["encoders"][::-1])
    assert built.model.encoder_names == ["color-grid", "patchify"]
    assert built.model.layout.source.tolist() == [0] * 8 + [1] * 4
    # A mapping may come in any order; the recipe's counts.
    pixels = pixels_of(built)
    inputs = inputs_of(built)
    backwards = dict(reversed(list(pixels.items())))
    expected = built.model(**inputs, pixel_values=pixels).logits
    assert torch.equal(built.model(**inputs, pixel_values=backwards).logits, expected)


def test_one_encoder_may_be_used_twice(make_built: Make, tiny_tables: Callable[[], dict[str, Any]]) -> None:
    first = tiny_tables()["encoders"][0]
    built = make_built(encoders=[first, {**first, "seed": 1}])
    assert built.model.encoder_names == ["patchify", "patchify-2"]
    assert not torch.equal(built.model.encoders["patchify"].projection, built.model.encoders["patchify-2"].projection)
    assert built.model(**inputs_of(built), pixel_values=pixels_of(built)).logits.isfinite().all()


def test_encoders_stay_in_evaluation_mode_and_frozen(make_built: Make) -> None:
    model = make_built().model.train()
    assert model.lm.training
    assert not any(module.training for module in model.encoders.modules())
    assert not any(parameter.requires_grad for parameter in model.encoders.parameters())


def test_encoding_keeps_no_gradient(make_built: Make) -> None:
    built = make_built()
    built.model.encoders.requires_grad_(True)
    assert not any(part.values.requires_grad for part in built.model.encode(pixels_of(built)))


@pytest.mark.parametrize("what", ["pixel_values", "encoder_tokens"])
def test_other_encoders_than_the_models_are_refused(what: str, shared_built: Make) -> None:
    built = shared_built()
    given = {"patchify": torch.zeros(1, 4, 8), "sam": torch.zeros(1, 4, 8)}
    with pytest.raises(ContractError) as caught:
        built.model(**inputs_of(built), **{what: given})
    assert str(caught.value) == f"{what} has ['patchify', 'sam'], expected the encoders ['color-grid', 'patchify']"


@pytest.mark.parametrize("shape", [(1, 5, 8), (1, 4, 9)])
def test_tokens_of_another_shape_are_refused_with_both_shapes(shape: tuple[int, ...], shared_built: Make) -> None:
    built = shared_built()
    with pytest.raises(ContractError) as caught:
        built.model(
            **inputs_of(built), encoder_tokens={"patchify": torch.zeros(shape), "color-grid": torch.zeros(1, 8, 6)}
        )
    assert str(caught.value) == (
        f"encoder_tokens of 'patchify' are {shape[1:]} per image, expected (4, 8) (tokens, width). "
        "Were they cached with other options?"
    )


def test_images_without_placeholders_are_refused(shared_built: Make) -> None:
    built = shared_built()
    with pytest.raises(ContractError, match="got 0 placeholders for 12 visual tokens"):
        built.model(**inputs_of(built, images=0), pixel_values=pixels_of(built))


def test_placeholders_without_images_are_refused(shared_built: Make) -> None:
    built = shared_built()
    with pytest.raises(ContractError, match="got 12 placeholders but no image"):
        built.model(**inputs_of(built))


def test_a_cache_without_positions_is_refused(shared_built: Make) -> None:
    # The scheme sees only the new tokens, so it would start at zero again.
    built = shared_built()
    inputs = inputs_of(built)
    past = built.model(**inputs, pixel_values=pixels_of(built), use_cache=True).past_key_values
    with pytest.raises(ContractError) as caught:
        built.model(input_ids=torch.tensor([[5]]), past_key_values=past)
    length = inputs["input_ids"].shape[1]
    assert str(caught.value) == f"position_ids are needed with a cache of {length} tokens; generate() passes them"


def test_logits_can_be_kept_for_the_last_places_only(shared_built: Make) -> None:
    built = shared_built()
    inputs = {**inputs_of(built), "pixel_values": pixels_of(built)}
    whole, last = built.model(**inputs).logits, built.model(**inputs, logits_to_keep=2).logits
    assert torch.allclose(whole[:, -2:], last, atol=1e-5)


def test_the_id_of_the_placeholder_is_never_looked_up(shared_built: Make) -> None:
    # It is beyond the vocabulary, so an embedding would fail or be read from elsewhere.
    built = shared_built()
    assert built.model.config.image_token_id >= built.model.lm.config.vocab_size
    assert built.model(**inputs_of(built), pixel_values=pixels_of(built)).logits.isfinite().all()


def test_embeddings_are_the_language_models(shared_built: Make) -> None:
    model = shared_built().model
    assert model.get_input_embeddings() is model.lm.get_input_embeddings()
    assert model.get_output_embeddings() is model.lm.get_output_embeddings()


def test_the_same_seed_builds_the_same_model(tiny_recipe: Callable[..., Any], registries: Any) -> None:
    from polyvex.assemble import build

    torch.manual_seed(1)
    first = build(tiny_recipe(), registries=registries).model.state_dict()
    torch.manual_seed(2)
    second = build(tiny_recipe(), registries=registries).model.state_dict()
    other = build(tiny_recipe("seed=1"), registries=registries).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm.lm_head.weight"], other["lm.lm_head.weight"])


def test_building_leaves_the_global_random_state(tiny_recipe: Callable[..., Any], registries: Any) -> None:
    from polyvex.assemble import build

    before = torch.get_rng_state()
    build(tiny_recipe(), registries=registries)
    assert torch.equal(torch.get_rng_state(), before)
