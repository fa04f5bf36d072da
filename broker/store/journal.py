"""Slots in one file that make small files durable at once. It is written over and never grows, so a sync of it has one
place of the disk to write, where a new file and its name have several and wait for each other.

What stands in a slot has its place among the files already, and is synced there a little later, together with others:
only then is the slot free. What stands in one at a start is put in its place again. One thread keeps, another frees.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
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
        #: The sha256 in each slot that is not free.
        self._taken: dict[int, str] = {}
        with self._opened() as fd:
            if os.fstat(fd).st_size < SLOTS * _SLOT_BYTES:
                for slot in range(SLOTS):
                    os.pwrite(fd, bytes(_SLOT_BYTES), slot * _SLOT_BYTES)
                os.fsync(fd)

    def found(self) -> Iterator[tuple[str, bytes]]:
        """The files that stood in slots when it was opened. Raises OSError."""
        with self._opened() as fd:
            entries = [os.pread(fd, _SLOT_BYTES, slot * _SLOT_BYTES) for slot in range(SLOTS)]
        for entry in entries:
            digest, size = _HEAD.unpack_from(entry)
            data = entry[_HEAD.size : _HEAD.size + size]
            if hashlib.sha256(data).digest() == digest:
                yield digest.hex(), data

    @property
    def empty(self) -> bool:
        return not self._taken

    @property
    def full(self) -> bool:
        return len(self._taken) == SLOTS

    @property
    def crowded(self) -> bool:
        """Whether slots should be made free before long."""
        return len(self._taken) >= SLOTS // 2

    @contextlib.contextmanager
    def keep(self, sha256: str, data: bytes) -> Iterator[None]:
        """Make it durable; in the block it takes its place. Not while `full`. Raises OSError."""
        slot = next(slot for slot in range(SLOTS) if slot not in self._taken)
        with self._opened() as fd:
            os.pwrite(fd, _HEAD.pack(bytes.fromhex(sha256), len(data)) + data, slot * _SLOT_BYTES)
            os.fdatasync(fd)
        yield
        self._taken[slot] = sha256

    def taken(self) -> dict[int, str]:
        """What is to be made durable where it lies, by slot."""
        return self._taken.copy()

    def free(self, slots: Iterable[int]) -> None:
        """What stands in these is durable where it lies. Raises OSError."""
        with self._opened() as fd:
            for slot in slots:
                # Not synced: what comes back is a whole file, at worst one that was deleted since and goes in a day.
                os.pwrite(fd, bytes(_HEAD.size), slot * _SLOT_BYTES)
                self._taken.pop(slot, None)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
