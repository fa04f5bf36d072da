"""What a file is and how large its picture: the same as Pillow says; any other bytes are DamagedImage at worst."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.pictures import picture, png_chunk, png_of_size
from web import images, multipart
from web.images import DamagedImage, Size

KINDS = [
    ("PNG", "RGB", {}, images.PNG),
    ("PNG", "RGBA", {}, images.PNG),
    ("JPEG", "RGB", {}, images.JPEG),
    ("JPEG", "L", {"progressive": True}, images.JPEG),
    ("JPEG", "RGB", {"comment": b"x" * 60_000}, images.JPEG),
    ("WEBP", "RGB", {}, images.WEBP),
    ("WEBP", "RGB", {"lossless": True}, images.WEBP),
    ("WEBP", "RGBA", {}, images.WEBP),
]


@pytest.mark.parametrize(("kind", "mode", "options", "media_type"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (8, 6), (640, 17), (1000, 1999)])
def test_type_and_size_are_those_of_the_picture(
    kind: str, mode: str, options: dict[str, Any], media_type: str, size: tuple[int, int]
) -> None:
    data = picture(kind, *size, mode, **options)
    assert images.media_type(data[: images.HEAD_BYTES]) == media_type
    assert images.size(data) == Size(*size)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_beginning_of_a_picture_has_its_size_or_is_damaged(kind: str) -> None:
    data = picture(kind, 40, 30)
    for length in range(images.HEAD_BYTES, len(data)):
        try:
            assert images.size(data[:length]) == Size(40, 30)
        except DamagedImage:
            continue


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBP", b""]), st.binary(max_size=200))
def test_any_bytes_have_a_size_or_are_damaged(head: bytes, rest: bytes) -> None:
    try:
        found = images.size(head + rest)
    except DamagedImage as e:
        assert str(e)
    else:
        assert found.width > 0 and found.height > 0


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"%PDF-1.7", b"SIMPLE  =", b"8BPS", b"II*\0", b"PK"],
)
def test_whatever_is_not_known_is_no_picture(data: bytes) -> None:
    assert images.media_type(data) is None


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0)])
def test_a_picture_without_a_size_is_damaged(width: int, height: int) -> None:
    with pytest.raises(DamagedImage):
        images.size(png_of_size(width, height))


def test_a_png_begins_with_its_head() -> None:
    with pytest.raises(DamagedImage):
        images.size(b"\x89PNG\r\n\x1a\n" + png_chunk(b"tEXt", b"x" * 13) + png_of_size(1, 1)[8:])


# ---- forms

TYPE = "multipart/form-data; boundary=XX"


def form(*parts: bytes, end: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


@given(st.binary(max_size=300))
def test_a_part_is_given_back_as_it_was(content: bytes) -> None:
    if b"\r\n--XX" not in b"\r\n" + content:
        other = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'
        assert multipart.part(form(other, FILE + content), TYPE, "file") == content


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (form(FILE + b"x"), "multipart/form-data"),
        (form(FILE + b"x"), "multipart/form-data; boundary="),
        (form(FILE + b"x"), "multipart/form-data; boundary=YY"),
        (form(FILE + b"x", end=b""), TYPE),
        (form(FILE + b"x", end=b"--XX"), TYPE),
        (form(FILE + b"x", FILE + b"y"), TYPE),
        (form(b"\r\nx"), TYPE),
        (form(b"Content-Type: image/png\r\n\r\nx"), TYPE),
        (form(FILE.replace(b"file", b"other", 1) + b"x"), TYPE),
        (form(FILE.replace(b"a.png", b"a\0.png") + b"x"), TYPE),
        (form(FILE.replace(b"a.png", b"a" * 5_000) + b"x"), TYPE),
        (form(*[FILE.replace(b"file", b"other", 1) + b"x"] * 10_000), TYPE),
        (b"", TYPE),
    ],
)
def test_a_form_that_is_none_is_refused(raw: bytes, content_type: str) -> None:
    with pytest.raises(multipart.BadMultipart):
        multipart.part(raw, content_type, "file")


def test_a_boundary_may_be_quoted() -> None:
    assert multipart.part(form(FILE + b"x"), 'multipart/form-data; charset=utf-8; boundary="XX"', "file") == b"x"
