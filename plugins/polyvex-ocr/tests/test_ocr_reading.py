"""Words are read as they were written, in their order and place, whatever the picture is."""

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from polyvex_ocr import Word, read_words
from polyvex_ocr.lines import Line, detector_pixels, detector_size, find_lines, in_reading_order, text_boxes
from polyvex_ocr.recognize import alphabet, spell
from polyvex_ocr.strips import HEIGHT, WIDEST, cut_strips, find_cuts

PAGE = [
    (20, "seven green windows"),
    (14, "the quick brown fox jumps over the lazy dog"),
    (32, "Hello paper World"),
    (60, "Big Words"),
    (24, "total due 42"),
]
"""Size in pixels and text of each line."""


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def draw(lines: list[tuple[int, str]], *, width: int = 500) -> tuple[Image.Image, list[tuple[str, list[float]]]]:
    """Text on white, and each word with its box."""
    image = Image.new("RGB", (width, sum(2 * size for size, _ in lines) + 20), "white")
    pen, top, words = ImageDraw.Draw(image), 10, []
    for size, text in lines:
        pen.text((20, top), text, fill="black", font=font(size))
        for index, word in enumerate(text.split()):
            before = pen.textlength("".join(f"{one} " for one in text.split()[:index]), font=font(size))
            left, _, right, _ = pen.textbbox((20 + before, top), word, font=font(size))
            words.append((word, [left, top + 0.2 * size, right, top + 1.2 * size]))  # capitals to descenders
        top += 2 * size
    return image, words


def overlap(one: tuple[float, ...], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    tall = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * tall / (sum(areas) - wide * tall)


def test_words_of_many_sizes_are_read_in_order_and_in_place() -> None:
    image, wanted = draw(PAGE)
    words = read_words(image)
    assert [word.text for word in words] == [text for text, _ in wanted]
    assert min(overlap(word.box, box) for word, (_, box) in zip(words, wanted, strict=True)) > 0.5
    assert all(0.5 <= word.confidence <= 1 for word in words)


def test_a_line_of_any_length_is_read_to_its_end() -> None:
    text = " ".join(["paper window garden street"] * 4)
    image, _ = draw([(24, text)], width=1500)
    strips = cut_strips(image, [Line(left=10, top=8, right=1490, bottom=40)])
    assert len(strips) > 2
    assert " ".join(word.text for word in read_words(image)) == text


def test_columns_of_one_row_are_read_from_left_to_right() -> None:
    image = Image.new("RGB", (600, 200), "white")
    pen = ImageDraw.Draw(image)
    for place, word in {(320, 22): "right", (20, 20): "left", (20, 120): "below"}.items():
        pen.text(place, word, fill="black", font=font(32))
    assert [word.text for word in read_words(image)] == ["left", "right", "below"]


def word_image() -> Image.Image:
    image = Image.new("RGB", (240, 90), (250, 250, 250))
    ImageDraw.Draw(image).text((30, 20), "window", fill=(20, 20, 20), font=font(40))
    return image


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def rotated_by_exif(image: Image.Image) -> Image.Image:
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned by 90 degrees to the right
    return turned


KINDS = {
    "grey": lambda image: image.convert("L"),
    "palette": lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE),
    "16 bit": sixteen_bit,
    "CMYK": lambda image: image.convert("CMYK"),
    "with alpha": lambda image: image.convert("RGBA"),
    "rotated by EXIF": rotated_by_exif,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_read_alike(kind: str) -> None:
    (wanted,), (got,) = (read_words(one, side=192) for one in (word_image(), KINDS[kind](word_image())))
    assert wanted.text == "window"
    assert got.text == "window"
    assert np.allclose(got.box, wanted.box, atol=6)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 2), (20000, 20)])
def test_odd_sizes_without_text_have_no_words(size: tuple[int, int]) -> None:
    assert read_words(Image.new("RGB", size, "white")) == []


def test_strips_of_a_very_long_line_join_without_a_gap() -> None:
    image = Image.new("RGB", (20000, 20), "white")
    pen = ImageDraw.Draw(image)
    for left in range(0, 20000, 200):
        pen.rectangle((left, 4, left + 150, 15), fill="black")
    strips = cut_strips(image, [Line(left=0, top=0, right=20000, bottom=20)])
    assert sum(strip.width for strip in strips) == 48000  # 2.4 times as large
    assert max(strip.width for strip in strips) <= WIDEST
    edges = [(strip.line.left, strip.line.right) for strip in strips]
    assert np.allclose([left for left, _ in edges], [0, *(right for _, right in edges[:-1])])
    assert edges[-1][1] == pytest.approx(20000)


def test_words_that_are_not_sure_are_left_out() -> None:
    image, _ = draw([(32, "Hello World")])
    confidences = [word.confidence for word in read_words(image)]
    assert len(confidences) == 2
    assert read_words(image, min_confidence=1.0) == []
    assert len(read_words(image, min_confidence=min(confidences))) == 2


def test_a_word_has_text_box_and_confidence() -> None:
    (word,) = read_words(word_image())
    assert isinstance(word, Word)
    left, top, right, bottom = word.box
    ink = ImageDraw.Draw(word_image()).textbbox((30, 20), "window", font=font(40))
    assert np.allclose([left, right], [ink[0], ink[2]], atol=20)  # CTC tells the ends to a good half character
    assert np.allclose([top, bottom], [ink[1], ink[3]], atol=8)


def test_detector_sizes_by_hand() -> None:
    assert detector_size(736, 736) == (736, 736)
    assert detector_size(100, 200) == (736, 1472)  # the shorter side grows to 736
    assert detector_size(1, 1) == (736, 736)
    assert detector_size(4000, 1000) == (2016, 512)  # the longer side shrinks to 2016; 504 is rounded to 16 times 32
    assert detector_size(20, 20000) == (32, 2016)


def test_boxes_on_a_map_by_hand() -> None:
    probabilities = np.zeros((40, 60), dtype=np.float32)
    probabilities[10:20, 10:30] = 0.9  # grown by 10 x 20 x 1.6 / 60 = 16 / 3
    probabilities[30:40, 40:60] = 0.4  # above the threshold of pixels, below that of boxes
    probabilities[0:2, 50:60] = 0.9  # too low to be text
    assert np.allclose(text_boxes(probabilities), [[10 - 16 / 3, 10 - 16 / 3, 30 + 16 / 3, 20 + 16 / 3]])


def test_pixels_are_blue_green_red_from_minus_one_to_one() -> None:
    pixels = detector_pixels(Image.new("RGB", (3, 2), (255, 0, 0)))
    assert pixels.shape == (3, 2, 3)
    assert [channel.mean() for channel in pixels] == [-1, -1, 1]


class FixedMap:
    """A detector that finds text at the upper left corner of any picture, and at the lower right one."""

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        height, width = inputs["x"].shape[2:]
        probabilities = np.zeros((1, 1, height, width), dtype=np.float32)
        probabilities[..., :40, :200] = probabilities[..., -40:, -200:] = 0.9
        return [probabilities]


def test_lines_are_told_on_the_picture_and_end_where_it_does() -> None:
    first, last = find_lines(FixedMap(), Image.new("RGB", (400, 368)))  # type: ignore[arg-type]  # seen twice as large
    grown = 40 * 200 * 1.6 / 480 / 2
    assert (first.left, first.top) == (0, 0)
    assert (first.right, first.bottom) == pytest.approx((100 + grown, 20 + grown))
    assert (last.left, last.top) == pytest.approx((300 - grown, 348 - grown))
    assert (last.right, last.bottom) == (400, 368)


def test_regions_that_touch_at_a_corner_are_one() -> None:
    probabilities = np.zeros((20, 20), dtype=np.float32)
    probabilities[4:8, 4:8] = probabilities[8:12, 8:12] = 0.9
    assert len(text_boxes(probabilities)) == 1


def test_reading_order_by_hand() -> None:
    def line(left: float, top: float) -> Line:
        return Line(left=left, top=top, right=left + 50, bottom=top + 20)

    a, b, c, d = line(0, 3), line(100, 0), line(10, 22), line(90, 25)
    assert in_reading_order([d, b, c, a]) == [a, b, c, d]


def test_spelling_by_hand() -> None:
    characters = alphabet("a\nb")
    assert characters == ["", "a", "b", " "]
    # One class for each step. Blanks part the repeated a; the space, three steps long, parts the words.
    classes = [0, 1, 1, 0, 1, 3, 3, 3, 2, 2, 0, 0]
    probabilities = np.eye(4)[classes] * 0.8
    first, second = spell(probabilities, characters, width=8 * 12)
    assert (first.text, second.text) == ("aa", "b")
    assert first.confidence == pytest.approx(0.8)
    # Marks at 1.5, 4.5, 5.5 (the space) and 8.5: half a character is half the median distance of 3, so 1.5.
    assert (first.start, first.stop) == (0.0, 6.0)
    assert (second.start, second.stop) == (7.0, 10.0)


def test_two_words_share_no_place() -> None:
    # Marks at 0.5, 6.5, 7.5 (the space), 8.5 and 14.5: half a character is half the median distance of 3.5. So the
    # first word would reach to 6.5 + 1.75, and the second from 8.5 - 1.75; both end in the middle, at 7.5.
    classes = [1, 0, 0, 0, 0, 0, 2, 3, 1, 0, 0, 0, 0, 0, 2]
    first, second = spell(np.eye(4)[classes], alphabet("a\nb"), width=8 * 15)
    assert (first.stop, second.start) == (7.5, 7.5)
    assert (first.start, second.stop) == (0.0, 15.0)


def test_nothing_spells_nothing() -> None:
    assert spell(np.eye(4)[[0, 0, 3, 0]], alphabet("a\nb"), width=32) == []


def test_strips_are_cut_in_gaps() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, 1500), dtype=np.uint8)
    gaps = [500, 900, 1130]
    for gap in gaps:
        pixels[:, :, gap : gap + 20] = 255
    cuts = find_cuts(pixels)
    assert all(any(gap <= cut < gap + 20 for gap in gaps) for cut in cuts)
    assert max(np.diff([0, *cuts, 1500])) <= WIDEST
