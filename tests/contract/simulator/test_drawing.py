"""Pictures: the same words and seed give the same one, others another, at any size."""

from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageStat

from comfyui.simulator.drawing import colour_of, flat_jpeg, flat_png, paint, png_with_text, preview_jpeg
from comfyui.simulator.scenery import PALETTES, imagine

PROMPTS = ["a lighthouse at dusk", "cyberpunk city at night", "a fox in a snowy forest", "desert canyon", "portrait"]


def opened(content: bytes) -> Image.Image:
    picture = Image.open(BytesIO(content))
    picture.load()
    return picture


@pytest.mark.parametrize("words", PROMPTS)
def test_a_picture_is_repeatable_and_has_something_in_it(words: str) -> None:
    picture = paint(imagine(words, 3), 160, 128)
    assert picture.size == (160, 128)
    assert picture.tobytes() == paint(imagine(words, 3), 160, 128).tobytes()
    assert min(ImageStat.Stat(picture).stddev) > 5


def test_another_seed_and_other_words_are_other_pictures() -> None:
    one = paint(imagine("a lake", 1), 96, 96)
    for other in (imagine("a lake", 2), imagine("a lake at dawn", 1)):
        assert ImageChops.difference(one, paint(other, 96, 96)).getbbox() is not None


@pytest.mark.parametrize("size", [(1, 1), (8, 16), (64, 64), (333, 97), (97, 333)])
def test_any_size_can_be_painted(size: tuple[int, int]) -> None:
    for seed in range(6):
        assert paint(imagine("sea, forest, city, lighthouse, stars"[seed:], seed), *size).size == size


def test_every_palette_can_be_painted() -> None:
    for word in PALETTES:
        assert paint(imagine(word, 9), 48, 48).size == (48, 48)


@pytest.mark.parametrize(
    ("size", "shown"), [((64, 64), (512, 512)), ((1024, 512), (512, 256)), ((300, 600), (256, 512))]
)
def test_a_preview_fits_its_square(size: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = opened(preview_jpeg(paint(imagine("x", 1), *size), 1, 0.5))
    assert picture.format == "JPEG"
    assert picture.size == shown


def test_previews_come_out_of_the_noise() -> None:
    picture = paint(imagine("a lighthouse at dusk", 1), 512, 512)
    distances = []
    for step in range(1, 6):
        preview = opened(preview_jpeg(picture, 1, step / 5))
        distances.append(sum(ImageStat.Stat(ImageChops.difference(picture, preview)).mean))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 12 < distances[0]


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (1024, 1024)])
def test_a_flat_picture_is_a_png_with_its_texts(size: tuple[int, int]) -> None:
    picture = opened(flat_png(*size, (10, 200, 30), {"prompt": '{"1": {}}'}))
    assert picture.format == "PNG"
    assert picture.size == size
    assert picture.convert("RGB").getpixel((0, size[1] - 1)) == (10, 200, 30)
    assert picture.info["prompt"] == '{"1": {}}'


def test_a_flat_preview_is_a_jpeg() -> None:
    assert opened(flat_jpeg()).format == "JPEG"


def test_texts_go_into_the_png() -> None:
    picture = opened(png_with_text(Image.new("RGB", (4, 4)), {"prompt": "a", "workflow": "b"}))
    assert picture.info == {"prompt": "a", "workflow": "b"}


def test_colours_tell_prompts_apart() -> None:
    assert len({colour_of(seed, "x") for seed in range(50)}) == 50
    assert colour_of(1, "x") == colour_of(1, "x")
