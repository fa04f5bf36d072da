"""What a file is by its first bytes, and how large the picture in it: decided without decoding anything.

Pure. Names and Content-Types of strangers say nothing; these bytes do. Only what is recognised here is ever shown in a
browser's page, everything else is handed out as a download.
"""

from __future__ import annotations

import dataclasses
from typing import Final

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
#: Media types that may be uploaded, with the ending of the stored name.
UPLOADS: Final = {PNG: "png", JPEG: "jpg", WEBP: "webp"}
#: As many bytes as `media_type` needs.
HEAD_BYTES: Final = 32

_PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n"
#: JPEG markers that begin a frame and so hold the size. Source: ITU T.81, table B.1.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


class DamagedImage(ValueError):
    """It begins like a picture, but its size cannot be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


def media_type(head: bytes) -> str | None:
    """The type of a file that begins so, if it may be shown in a page; else None."""
    if head.startswith(_PNG_HEAD):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return None


def size(data: bytes) -> Size:
    """Width and height of a whole PNG, JPEG or WebP file. Raises DamagedImage."""
    readers = {PNG: _png, JPEG: _jpeg, WEBP: _webp}
    found = media_type(data[:HEAD_BYTES])
    try:
        width, height = readers[found](data) if found in readers else (0, 0)
    except IndexError as e:
        raise DamagedImage("it ends before its size is told") from e
    if width == 0 or height == 0:
        raise DamagedImage("it has no size")
    return Size(width, height)


def _png(data: bytes) -> tuple[int, int]:
    # Source: PNG third edition, section 5.6: IHDR comes first and has 13 bytes.
    if data[8:16] != b"\x00\x00\x00\rIHDR" or not data.endswith(b"IEND\xaeB`\x82"):
        raise DamagedImage("it is not a whole PNG file")
    return _number(data, 16, 4), _number(data, 20, 4)


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise DamagedImage("a marker is missing")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _JPEG_FRAMES:
            return _number(data, at + 5, 2), _number(data, at + 3, 2)
        if marker in (0xD9, 0xDA):
            raise DamagedImage("it has no frame")
        if marker not in _JPEG_BARE:
            length = _number(data, at, 2)
            if length < 2:
                raise DamagedImage("a segment has no length")
            at += length


def _webp(data: bytes) -> tuple[int, int]:
    # Source: RFC 9649 section 2.4 to 2.7, RFC 6386 section 9.1.
    if _number(data, 4, 4, "little") + 8 > len(data):
        raise DamagedImage("it is not whole")
    kind = data[12:16]
    if kind == b"VP8X":
        return _number(data, 24, 3, "little") + 1, _number(data, 27, 3, "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _number(data, 21, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _number(data, 26, 2, "little") & 0x3FFF, _number(data, 28, 2, "little") & 0x3FFF
    raise DamagedImage("its first part is unknown")


def _number(data: bytes, at: int, count: int, order: str = "big") -> int:
    if at + count > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + count], "big" if order == "big" else "little")
