"""Slots in one file that keep small files durably, and at once. It is written over and never grows, so a sync of it has
one place of the disk to write, where a new file and its name have several and wait for each other.

What stands in a slot is in memory too, and is found again at a start. One thread keeps, another frees, any may ask:
each step on the dict is one of the interpreter's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker.protocol.files import AT_ONCE_BYTES

SLOTS: Final = 32
#: The sha256 of what follows, and how many bytes that are. A write that was torn has another sha256.
_HEAD: Final = struct.Struct("<32sI")
#: Whole blocks, so that no two slots share one.
_SLOT_BYTES: Final = AT_ONCE_BYTES + 4_096


class Journal:
    def __init__(self, path: Path) -> None:
        """Open or make it; its folder is synced by the caller. Raises OSError."""
        self._path = path
        with _opened(path) as fd:
            if os.fstat(fd).st_size < SLOTS * _SLOT_BYTES:
                for slot in range(SLOTS):
                    os.pwrite(fd, bytes(_SLOT_BYTES), slot * _SLOT_BYTES)
                os.fsync(fd)
        #: Slot and content, by sha256.
        self._kept = found(path)

    def get(self, sha256: str) -> bytes | None:
        kept = self._kept.get(sha256)
        return kept[1] if kept is not None else None

    def kept(self) -> list[tuple[str, bytes]]:
        return [(sha256, data) for sha256, (_, data) in self._kept.copy().items()]

    @property
    def full(self) -> bool:
        return len(self._kept) == SLOTS

    @property
    def crowded(self) -> bool:
        """Whether slots should be made free before long."""
        return len(self._kept) >= SLOTS // 2

    def keep(self, sha256: str, data: bytes) -> None:
        """Make it durable, unless it is kept already. Not while `full`. Raises OSError."""
        if sha256 in self._kept:
            return
        taken = {slot for slot, _ in self._kept.copy().values()}
        slot = next(slot for slot in range(SLOTS) if slot not in taken)
        with _opened(self._path) as fd:
            os.pwrite(fd, _HEAD.pack(bytes.fromhex(sha256), len(data)) + data, slot * _SLOT_BYTES)
            os.fdatasync(fd)
        self._kept[sha256] = slot, data

    def free(self, sha256: str) -> None:
        """It is durable elsewhere. Raises OSError."""
        slot, _ = self._kept[sha256]
        with _opened(self._path) as fd:
            # Not synced: what comes back is a whole file, at worst one that was deleted since and goes in a day.
            os.pwrite(fd, bytes(_HEAD.size), slot * _SLOT_BYTES)
        del self._kept[sha256]


def found(path: Path) -> dict[str, tuple[int, bytes]]:
    """What stands in the slots of a journal: slot and content, by sha256; nothing in one that is not there.

    Raises OSError.
    """
    files = {}
    content = path.read_bytes() if path.exists() else b""
    for slot in range(len(content) // _SLOT_BYTES):
        digest, size = _HEAD.unpack_from(content, slot * _SLOT_BYTES)
        begin = slot * _SLOT_BYTES + _HEAD.size
        data = content[begin : begin + min(size, AT_ONCE_BYTES)]
        if hashlib.sha256(data).digest() == digest:
            files[digest.hex()] = slot, data
    return files


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
