"""What waits for one browser whose socket is full: bounded, and of progress and previews only the newest.

Pure: web/ws.py puts frames in and takes bytes out. A browser sees serials that count by one; where a frame was replaced
by a newer one a `skip` says so, thus a gap always means loss.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from web.frames import Opcode, encode

#: A browser that lets more than this pile up is closed, a snapshot and what was begun not counted: over a slow line a
#: large fleet's snapshot takes a while, and whoever was closed for it would be so again after each return.
MAX_WAITING_BYTES: Final = 1 << 20
#: The key of a snapshot: it stands for every event before it.
SNAPSHOT: Final = "snapshot"
#: What leaves in one go.
Piece = bytes | memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes, encoded once for all browsers that see it."""

    #: Its place in the feed of its scope; None for what is not counted (previews, ticks).
    serial: int | None
    #: Of waiting frames with the same key only the newest is kept. Empty: each is kept.
    key: str
    #: Ready for the socket.
    data: bytes


class Mailbox:
    def __init__(self) -> None:
        #: The rest of what the socket took only in part. Its frames are counted as sent. It is a view of what all
        #: browsers share: copies of a large snapshot would add up when many come at once.
        self._rest: Piece = b""
        #: Frames in the order they leave; a frame without a key stands under a key of its own.
        self._waiting: dict[str | int, Frame] = {}
        self._unique = 0
        #: The serial the browser will have seen once `_rest` is sent.
        self._seen = 0
        self.size_bytes = 0

    @property
    def empty(self) -> bool:
        return not self._rest and not self._waiting

    @property
    def full(self) -> bool:
        snapshot = self._waiting.get(SNAPSHOT)
        excused = len(self._rest) + (len(snapshot.data) if snapshot is not None else 0)
        return self.size_bytes - excused > MAX_WAITING_BYTES

    def sent(self, serial: int | None, rest: Piece) -> None:
        """The socket took frames up to `serial`, all but `rest`. Only while the mailbox is empty."""
        if serial is not None:
            self._seen = serial
        self._rest = rest
        self.size_bytes = len(rest)

    def add(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.key == SNAPSHOT:
                self._waiting.clear()
                self.size_bytes = len(self._rest)
            self._unique += 1
            key = frame.key if frame.key else self._unique
            if (older := self._waiting.pop(key, None)) is not None:
                self.size_bytes -= len(older.data)
            self._waiting[key] = frame
            self.size_bytes += len(frame.data)

    def end(self, close_frame: bytes) -> None:
        """Nothing but the frame begun and this one leaves from now on."""
        self._waiting = {SNAPSHOT: Frame(None, SNAPSHOT, close_frame)}
        self.size_bytes = len(self._rest) + len(close_frame)

    def put_back(self, rest: Piece) -> None:
        """The socket did not take this end of what `take` gave last."""
        self._rest = rest
        self.size_bytes += len(rest)

    def take(self, most_bytes: int) -> Piece:
        """The next bytes for the socket: what was begun; else about `most_bytes`, at least one frame if any waits."""
        if self._rest:
            begun, self._rest = self._rest, b""
            self.size_bytes -= len(begun)
            return begun
        parts: list[bytes] = []
        size = 0
        while self._waiting and size < most_bytes:
            frame = self._waiting.pop(next(iter(self._waiting)))
            self.size_bytes -= len(frame.data)
            if frame.serial is not None:
                if frame.key != SNAPSHOT and frame.serial > self._seen + 1:
                    parts.append(encode(Opcode.TEXT, b'{"type":"skip","serial":%d}' % (frame.serial - 1)))
                self._seen = frame.serial
            parts.append(frame.data)
            size += len(frame.data)
        return b"".join(parts)
