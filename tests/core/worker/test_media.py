"""Kinds of files, and whether their end is there."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.core.media import Read, media_type, whole


def reading(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "media"), [("PNG", "image/png"), ("WEBP", "image/webp"), ("JPEG", "image/jpeg")])
def test_pictures_are_known_by_their_bytes(kind: str, media: str) -> None:
    data = picture(kind)
    assert media_type(reading(data)) == media
    assert whole(reading(data), len(data))


@pytest.mark.parametrize(
    ("head", "media"),
    [
        (b"\x00\x00\x00\x20ftypisom", "video/mp4"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00????", "application/octet-stream"),
        (b"<html>", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (b"fLaC", "audio/flac"),
    ],
)
def test_other_files_are_known_or_are_not(head: bytes, media: str) -> None:
    assert media_type(reading(head)) == media


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_that_is_cut_anywhere_is_not_whole(kind: str) -> None:
    data = picture(kind)
    for end in range(12, len(data)):
        assert not whole(reading(data[:end]), end)


def test_a_sound_whose_writer_could_not_go_back_to_tell_its_length_is_whole() -> None:
    data = b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(1_000)
    assert media_type(reading(data)) == "audio/wav" and whole(reading(data), len(data))


def test_bytes_after_the_end_of_a_picture_do_no_harm() -> None:
    data = picture("PNG") + bytes(1_000)
    assert whole(reading(data), len(data))


def test_a_picture_of_endless_chunks_is_given_up() -> None:
    chunk = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    data = b"\x89PNG\r\n\x1a\n" + chunk * 60_000
    assert whole(reading(data), len(data))


@given(st.binary(max_size=64))
def test_any_bytes_are_some_file(data: bytes) -> None:
    assert media_type(reading(data))
    assert whole(reading(data), len(data)) in (True, False)
