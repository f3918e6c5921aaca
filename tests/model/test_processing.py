"""The processor: each encoder's own pixels, one place per visual token, padding on the left."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from polyvex.assemble import Built
from polyvex.data.batches import pad_left
from polyvex.encoders.images import open_image
from polyvex.errors import ContractError

Make = Callable[..., Built]


def picture(color: str = "red") -> Image.Image:
    return Image.new("RGB", (40, 30), color)


def test_a_question_becomes_the_models_inputs(shared_built: Make) -> None:
    built = shared_built()
    inputs = built.processor(picture(), built.processor.prompt("what?"))
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    assert int((inputs["input_ids"] == built.model.config.image_token_id).sum()) == 12
    assert built.model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_each_encoder_gets_its_own_pixels(shared_built: Make) -> None:
    built = shared_built()
    pixels = built.processor.pixels([picture()])
    for name, encoder in built.model.encoders.items():
        assert torch.equal(pixels[name][0], encoder.transform(picture()))
    # patchify scales to -1 … 1, color-grid to 0 … 1.
    assert pixels["patchify"].min() == -1
    assert pixels["color-grid"].min() == 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_mode_of_picture_is_taken(mode: str, shared_built: Make) -> None:
    processor = shared_built().processor
    image = Image.new("I;16", (8, 8)) if mode == "I;16" else picture().convert(mode)
    assert processor(image, processor.prompt("what?"))["pixel_values"]["patchify"].shape == (1, 3, 32, 32)


def test_a_pictures_rotation_is_applied_as_for_the_cache(shared_built: Make, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = picture()
    image.paste((0, 0, 255), (0, 0, 40, 10))
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    processor = shared_built().processor
    with Image.open(path) as raw:
        direct = processor.pixels([raw])["patchify"]
    assert torch.equal(direct, processor.pixels([open_image(path)])["patchify"])


def test_padding_is_on_the_left(shared_built: Make) -> None:
    processor = shared_built().processor
    inputs = processor([picture()], [processor.prompt("what color is it?"), processor.prompt("why?", images=0)])
    mask = inputs["attention_mask"]
    assert mask[0].all()
    assert mask[1].tolist() == sorted(mask[1].tolist())
    assert mask[1, 0] == 0
    assert (inputs["input_ids"][mask == 0] == processor.tokenizer.pad_token_id).all()


def test_images_of_all_prompts_come_in_order(shared_built: Make) -> None:
    processor = shared_built().processor
    texts = [processor.prompt("a", images=2), processor.prompt("b", images=1)]
    inputs = processor([picture("red"), picture("green"), picture("blue")], texts)
    one_by_one = [processor.pixels([picture(color)])["patchify"][0] for color in ("red", "green", "blue")]
    assert torch.equal(inputs["pixel_values"]["patchify"], torch.stack(one_by_one))


def test_text_alone_needs_no_image(shared_built: Make) -> None:
    processor = shared_built().processor
    assert "pixel_values" not in processor(None, processor.prompt("why?", images=0))


@pytest.mark.parametrize(("images", "marks"), [(0, 1), (2, 1), (1, 0)])
def test_images_and_marks_must_agree(images: int, marks: int, shared_built: Make) -> None:
    processor = shared_built().processor
    with pytest.raises(ContractError) as caught:
        processor([picture()] * images, processor.prompt("what?", images=marks))
    assert str(caught.value) == (
        f"got {images} images for {marks} '<image>' marks. Make each text with processor.prompt(question, images=n), "
        "or use processor.question(question, images)"
    )


@pytest.mark.parametrize("options", [{"return_tensors": "np"}, {"return_tensors": None}, {"padding": False}])
def test_other_kinds_of_output_are_refused(options: dict[str, object], shared_built: Make) -> None:
    processor = shared_built().processor
    with pytest.raises(ContractError, match="the processor returns padded torch tensors"):
        processor(picture(), processor.prompt("what?"), **options)


@pytest.mark.parametrize("options", [{"truncation": True, "max_length": 4}, {"do_rescale": False}])
def test_options_without_effect_are_refused(options: dict[str, object], shared_built: Make) -> None:
    # An option that is swallowed is a wish that nobody hears.
    processor = shared_built().processor
    with pytest.raises((ContractError, TypeError)):
        processor(picture(), processor.prompt("what?"), **options)


def test_inputs_can_be_moved_with_their_pixels(shared_built: Make) -> None:
    processor = shared_built().processor
    moved = processor(picture(), processor.prompt("what?")).to("meta")
    assert moved["input_ids"].device.type == "meta"
    assert {value.device.type for value in moved["pixel_values"].values()} == {"meta"}


def test_left_padding_by_hand() -> None:
    padded = pad_left([[1, 2, 3], [4]], pad=9)
    assert padded["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
