"""The parts of a multipart/form-data body that is in memory. Pure; bounded by the number of parts, never by patience.

Bottle's own parser goes through a body line by line, so that a file of line breaks holds up every other request.
"""

from __future__ import annotations

import re
from typing import Final

MAX_PARTS: Final = 16
_MAX_HEAD_BYTES: Final = 4 << 10

_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(r'content-disposition:\s*form-data\s*;(?:.*?;)?\s*name="([^"]*)"', re.IGNORECASE)


class BadMultipart(ValueError):
    """The body is not what its Content-Type says."""


def part(raw: bytes, content_type: str, name: str) -> bytes:
    """The content of the one part called `name`. Raises BadMultipart. Source: RFC 7578, RFC 2046 section 5.1."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise BadMultipart("the Content-Type names no boundary")
    boundary = (found[1] if found[1] is not None else found[2]).encode("latin-1", "replace")
    _, *pieces = (b"\r\n" + raw).split(b"\r\n--" + boundary, MAX_PARTS + 1)
    if not pieces or len(pieces) > MAX_PARTS:
        raise BadMultipart(f"there are no parts, or more than {MAX_PARTS}")
    if not pieces[-1].startswith(b"--"):
        raise BadMultipart("the end is missing")
    contents = [content for named, content in map(_opened, pieces[:-1]) if named == name]
    if len(contents) != 1:
        raise BadMultipart(f"want exactly one part named `{name}`")
    return contents[0]


def _opened(piece: bytes) -> tuple[str, bytes]:
    """Name and content of what stands between two boundaries."""
    head, gap, content = piece.partition(b"\r\n\r\n")
    if not gap or not head.startswith(b"\r\n") or len(head) > _MAX_HEAD_BYTES or b"\0" in head:
        raise BadMultipart("a part has no proper head")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        if (found := _NAME.match(line)) is not None:
            return found[1], content
    raise BadMultipart("a part has no name")
