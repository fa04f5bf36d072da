"""A zip archive written as it is sent: stored, never deflated; in memory is one piece of a file at a time. Pure."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

#: A picture does not get smaller; and what was made at another time tells nobody anything.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


class _Sink(io.RawIOBase):
    """What zipfile writes to; it cannot seek, so that sizes follow each file."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def archive(entries: Iterable[tuple[str, int, Iterable[bytes]]]) -> Iterator[bytes]:
    """The bytes of an archive of (name, size, pieces), as they are taken; each entry is asked for in its turn."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as packed:
        for name, size_bytes, pieces in entries:
            about = zipfile.ZipInfo(name, _DATE)
            about.file_size = size_bytes
            with packed.open(about, "w") as entry:
                for piece in pieces:
                    entry.write(piece)
                    yield sink.take()
            yield sink.take()
    yield sink.take()
