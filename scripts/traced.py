"""What a process did to a folder and what it said on its sockets, read from what strace wrote of it.

`calls` needs `strace -f -y -xx -s BIG -e trace=CALLS`. A call is told once, in the order of its beginning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from broker.protocol.codec import TYPES, decode
from broker.protocol.errors import RemoteProtocolError

CALLS: Final = (
    "openat,mkdir,rename,unlink,write,pwrite64,ftruncate,fallocate,fsync,fdatasync,sendto,sendmsg,writev,pwritev,"
    "renameat,renameat2,unlinkat,rmdir,link,linkat,truncate,copy_file_range,sendfile"
)
STRACE: Final = ("strace", "-f", "-y", "-xx", "-s", str(64 << 20), "-e", f"trace={CALLS}")

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+|\?)")
_PATH = re.compile(r"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclasses.dataclass(slots=True)
class Call:
    name: str
    #: As strace wrote them.
    arguments: str
    #: Lines of the trace. A call that never ended: of none, and its result is None.
    began: int
    ended: int | None
    result: int | None

    @property
    def fd(self) -> str:
        """What the first argument stands for: a path, or the name of a socket; empty for a file that is deleted."""
        found = _PATH.match(self.arguments)
        return "" if found is None or found[2] else bytes_of(found[1]).decode()

    @property
    def texts(self) -> list[bytes]:
        """The strings among the arguments: paths or data."""
        return [bytes_of(text) for text in _TEXT.findall(self.arguments)]

    @property
    def numbers(self) -> list[int]:
        """The plain numbers at the end of the arguments."""
        return [int(word) for word in _TEXT.sub("", self.arguments).split(", ") if word.strip().isdigit()]


def bytes_of(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def calls(lines: Iterable[str], first: int = 0) -> list[Call]:
    """first: the number of the first line, where an earlier trace goes on in this one."""
    found: list[Call] = []
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(lines, first):
        if match := _BEGUN.match(line):
            found.append(Call(match[2], match[3], number, None, None))
            open_calls[match[1]] = found[-1]
        elif match := _RESUMED.match(line):
            call = open_calls.pop(match[1])
            call.arguments += match[3]
            call.ended, call.result = number, int(match[4]) if match[4] != "?" else None
        elif match := _WHOLE.match(line):
            result = int(match[4]) if match[4] != "?" else None
            found.append(Call(match[2], match[3], number, number if result is not None else None, result))
    return found


class Wire:
    """The messages that leave one process, by connection: ZMTP 3 frames without encryption."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytearray] = {}
        self._greeted: set[str] = set()
        self._frames: dict[str, list[bytes]] = {}

    def feed(self, connection: str, data: bytes) -> Iterator[Any]:
        """Messages of the contract that these bytes complete."""
        waiting = self._waiting.setdefault(connection, bytearray())
        waiting += data
        if connection not in self._greeted:
            if len(waiting) < 64:
                return
            self._greeted.add(connection)
            del waiting[:64]
        frames = self._frames.setdefault(connection, [])
        while (head := _head(waiting)) is not None:
            flags, begin, end = head
            if end > len(waiting):
                return
            body = bytes(waiting[begin:end])
            del waiting[:end]
            if flags & 4:
                continue  # a command of the transport
            frames.append(body)
            if not flags & 1:
                yield from _message(frames)
                frames.clear()


def _head(data: bytearray) -> tuple[int, int, int] | None:
    """Flags of the first frame, and where its body begins and ends."""
    if len(data) < 2:
        return None
    if not data[0] & 2:
        return data[0], 2, 2 + data[1]
    if len(data) < 9:
        return None
    return data[0], 9, 9 + int.from_bytes(data[1:9], "big")


def _message(frames: list[bytes]) -> Iterator[Any]:
    # An event has its topic before it.
    for skip in (0, 1):
        if frames[skip : skip + 1] == [b"CF1"]:
            try:
                yield decode(frames[skip:], frozenset(TYPES))
            except RemoteProtocolError as e:
                raise ValueError(f"the broker sent what is no message: {e}") from e
            return
