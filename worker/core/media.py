"""What kind of file a result is, by its first bytes, and whether its end is there. Pure."""

from __future__ import annotations

from typing import Final

#: How much of each end of a file is looked at.
ENDS_BYTES: Final = 1_024
UNKNOWN: Final = "application/octet-stream"

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"glTF", "model/gltf-binary"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_ENDS: Final = {"image/png": b"IEND\xaeB`\x82", "image/jpeg": b"\xff\xd9", "image/gif": b"\x3b"}


def media_type(head: bytes) -> str:
    """head: the first bytes of the file, at least 16 if it has them."""
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return "video/mp4"
    return UNKNOWN


def whole(head: bytes, tail: bytes, size_bytes: int) -> bool:
    """Whether a file ends as its kind must. What cannot be told counts as whole.

    A file cut while it was saved is served with the cut length, so the transfer alone does not show it.
    """
    if head.startswith(b"RIFF") and len(head) >= 8:
        return size_bytes >= 8 + int.from_bytes(head[4:8], "little")
    end = _ENDS.get(media_type(head))
    return end is None or end in tail
