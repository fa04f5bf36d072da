"""What a disk may hold after a power cut: a model that promises no more than POSIX does. Pure, but for `write_to`.

A change of a file is on disk once the file was synced after it; a name, once its folder was. Whatever was not synced
may be there, or not, or in part (sector by sector), in any combination: `Disk.cut` draws one.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

#: A write may be torn at these sizes.
SECTORS: Final = (512, 4_096)
#: The shares of what was not synced that are there all the same.
KEPT: Final = (0.0, 0.5, 0.9, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Bytes at an offset; or, without bytes, the size that the file is cut or grown to."""

    at: int
    offset: int
    data: bytes | None


class File:
    def __init__(self) -> None:
        self.synced = bytearray()
        self.pending: list[Change] = []
        #: As programs see it.
        self.size = 0

    def change(self, change: Change) -> None:
        self.pending.append(change)
        end = change.offset + len(change.data or b"")
        self.size = max(self.size, end) if change.data is not None else end

    def sync(self, before: int) -> None:
        """What was done before then is on disk."""
        for change in [one for one in self.pending if one.at < before]:
            apply(self.synced, change)
        self.pending = [one for one in self.pending if one.at >= before]

    def cut(self, rng: random.Random) -> bytes:
        found, kept, sector = bytearray(self.synced), rng.choice(KEPT), rng.choice(SECTORS)
        for change in self.pending:
            if rng.random() < kept:
                apply(found, change)
            elif change.data is not None and rng.random() < 0.5:
                for piece in torn(change, sector):
                    if rng.random() < 0.5:
                        apply(found, piece)
        return bytes(found)


def apply(content: bytearray, change: Change) -> None:
    if change.data is None:
        del content[change.offset :]
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    if change.data is not None:
        content[change.offset : change.offset + len(change.data)] = change.data


def torn(change: Change, sector: int) -> list[Change]:
    """The pieces of a write that a disk writes whole."""
    assert change.data is not None
    end, pieces, begin = change.offset + len(change.data), [], change.offset
    while begin < end:
        until = min(end, (begin // sector + 1) * sector)
        pieces.append(Change(change.at, begin, change.data[begin - change.offset : until - change.offset]))
        begin = until
    return pieces


#: Path -> the file there; None: a folder.
Names = dict[str, File | None]


@dataclasses.dataclass(frozen=True, slots=True)
class NameChange:
    at: int
    #: The folder whose sync makes it durable.
    folder: str
    do: Callable[[Names], object]


class Disk:
    """`at` numbers what happens; what is begun at the same number or later than a sync is not covered by it."""

    def __init__(self, *, lies: bool = False) -> None:
        """lies: it says synced and is not."""
        #: As programs see them, and as they are on disk.
        self.names: Names = {}
        self.synced: Names = {}
        self.pending: list[NameChange] = []
        self._lies = lies

    def open(self, at: int, path: str, *, empty: bool) -> None:
        """Make a file that is not there yet. empty: let go of what it held."""
        file = self.names.get(path)
        if file is None:
            made = File()
            self._rename(at, path, lambda names: names.update({path: made}))
        elif empty and file.size:
            file.change(Change(at, 0, None))

    def folder(self, at: int, path: str) -> None:
        if path not in self.names:
            self._rename(at, path, lambda names: names.update({path: None}))

    def write(self, at: int, path: str, offset: int | None, data: bytes) -> None:
        """offset None: at the end."""
        file = self.names.get(path)
        if file is not None:
            file.change(Change(at, file.size if offset is None else offset, data))

    def resize(self, at: int, path: str, size: int) -> None:
        file = self.names.get(path)
        if file is not None:
            file.change(Change(at, size, None))

    def move(self, at: int, path: str, to: str) -> None:
        file = self.names[path]

        def do(names: Names) -> None:
            if names.get(path) is file:
                del names[path]
            names[to] = file

        self._rename(at, to, do)

    def remove(self, at: int, path: str) -> None:
        self._rename(at, path, lambda names: names.pop(path, None))

    def sync(self, before: int, path: str) -> None:
        """A sync, begun at `before`, has come to its end."""
        if self._lies:
            return
        file = self.names.get(path)
        if file is not None:
            file.sync(before)
            return
        covered = [one for one in self.pending if one.folder == path and one.at < before]
        for change in covered:
            change.do(self.synced)
        self.pending = [one for one in self.pending if one not in covered]

    def cut(self, rng: random.Random) -> dict[str, bytes | None]:
        """What may be there after a power cut now: the content of each path; None: a folder."""
        names, kept = dict(self.synced), rng.choice(KEPT)
        if rng.random() < 0.5:  # a journal: what came first is there first
            chosen = self.pending[: rng.randint(0, len(self.pending))]
        else:
            chosen = [change for change in self.pending if rng.random() < kept]
        for change in chosen:
            change.do(names)
        contents = {id(file): file.cut(rng) for file in names.values() if file is not None}
        return {path: None if file is None else contents[id(file)] for path, file in sorted(names.items())}

    def _rename(self, at: int, path: str, do: Callable[[Names], object]) -> None:
        do(self.names)
        self.pending.append(NameChange(at, str(PurePosixPath(path).parent), do))


def write_to(folder: Path, image: dict[str, bytes | None], root: str) -> None:
    """Lay an image out below `folder`, where `root` was. What has lost a folder above it is not there."""
    for path, content in image.items():
        place = folder / PurePosixPath(path).relative_to(root)
        if not place.parent.is_dir():
            continue
        if content is None:
            place.mkdir(mode=0o700)
        else:
            place.write_bytes(content)
