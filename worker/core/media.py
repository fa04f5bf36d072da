"""What kind of file a result is, and whether its end is there. Pure: reads through a function it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

UNKNOWN: Final = "application/octet-stream"
#: Chunks of one PNG that are looked at; a picture of 1 GB has fewer.
CHUNKS: Final = 50_000
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MAGIC: Final = (
    (_PNG, "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"glTF", "model/gltf-binary"),
)
#: The length that a writer leaves in RIFF which cannot go back to tell it, as into a pipe.
_UNTOLD: Final = b"\xff\xff\xff\xff"
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}

#: read(offset, size_bytes) -> that part of the file, shorter at its end.
Read = Callable[[int, int], bytes]


def media_type(read: Read) -> str:
    """By the first bytes: names and headers are ComfyUI's word, and untrusted."""
    head = read(0, 16)
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], UNKNOWN)
    return "video/mp4" if head[4:8] == b"ftyp" else UNKNOWN


def whole(read: Read, size_bytes: int) -> bool:
    """Whether the file ends where its own lengths say. Kinds that do not say count as whole.

    A file that was cut while it was saved is served with the cut length, so the transfer alone does not show it.
    """
    head = read(0, 8)
    if head.startswith(b"RIFF") and len(head) == 8 and head[4:] != _UNTOLD:
        return size_bytes >= 8 + int.from_bytes(head[4:], "little")
    return head != _PNG or _png_ends(read, size_bytes)


def _png_ends(read: Read, size_bytes: int) -> bool:
    # Chunks of [length, type, data, checksum] up to IEND; anything may follow that.
    offset = len(_PNG)
    for _ in range(CHUNKS):
        chunk = read(offset, 8)
        if len(chunk) < 8:
            return False
        offset += 12 + int.from_bytes(chunk[:4], "big")
        if chunk[4:] == b"IEND":
            return offset <= size_bytes
    return True
