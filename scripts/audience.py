"""Browsers that watch: WebSockets that count what comes and forget it, all read in one loop.

Only messages of some size count: ticks and pings do not, and pings are answered, so that a server that asks whether
somebody is there keeps everybody.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Self

#: What is counted has at least so many bytes.
COUNTED_BYTES = 100
#: What has not come by then is lost.
LOST_S = 60.0
_PING, _PONG = 0x9, 0xA


class Audience:
    def __init__(self, port: int, path: str, count: int) -> None:
        self._poll = select.epoll()
        self.browsers: dict[int, Browser] = {}
        self._room = bytearray(1 << 20)
        for _ in range(count):
            browser = Browser(port, path)
            self.browsers[browser.socket.fileno()] = browser
            self._poll.register(browser.socket, select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for browser in self.browsers.values():
            browser.socket.close()
        self._poll.close()

    def wake(self, send: Callable[[], None]) -> None:
        """Send until everybody gets it: a subscription takes a moment to be heard of."""
        self.settle()
        for browser in self.browsers.values():
            browser.missing = 1
        until = time.monotonic() + LOST_S
        while any(browser.missing > 0 for browser in self.browsers.values()):
            if time.monotonic() > until:
                raise SystemExit("bench: a server sends nothing")
            send()
            while self._read(0.3):
                continue
        self.forget()

    def settle(self) -> None:
        """Read what is there already."""
        while self._read(0.0):
            continue

    def expect(self, count: int) -> None:
        """Wait until each has got so many more messages since it was last said what to expect."""
        behind = 0
        for browser in self.browsers.values():
            browser.missing += count
            behind += browser.missing > 0
        until = time.monotonic() + LOST_S
        while behind:
            if time.monotonic() > until:
                raise SystemExit(f"bench: {behind} of {len(self.browsers)} browsers have not got every message")
            found = self._read(1.0)
            behind -= sum(browser.missing <= 0 < browser.missing + got for browser, got in found)

    def look(self, until: float) -> None:
        """Read what comes up to then."""
        while (left := until - time.perf_counter()) > 0:
            self._read(left)

    def forget(self) -> None:
        """Whatever came so far, nothing is owed."""
        self.settle()
        for browser in self.browsers.values():
            browser.missing = 0

    def _read(self, wait_s: float) -> list[tuple[Browser, int]]:
        """(browser, messages it got) of one look at all sockets."""
        found, room = [], self._room
        for descriptor, _ in self._poll.poll(wait_s):
            browser = self.browsers[descriptor]
            size = browser.socket.recv_into(room)
            if not size:
                raise SystemExit("bench: a server closed a WebSocket")
            # Mostly one whole message of middle length.
            alone = browser.idle and room[0] & 0x0F != _PING and room[1] == 126 and size == 4 + (room[2] << 8 | room[3])
            got = 1 if alone else browser.take(room, size)
            browser.missing -= got
            if browser.times is not None:
                browser.times += [time.perf_counter()] * got
            found.append((browser, got))
        return found


class Browser:
    """One WebSocket past its handshake. Source: RFC 6455 section 5.2; a server's frames are not masked."""

    def __init__(self, port: int, path: str, *, room_bytes: int | None = None) -> None:
        """room_bytes: of the kernel for what was not read."""
        self.socket = socket.socket()
        if room_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"bench: a WebSocket was refused: {head[:200]!r}")
        #: Messages that must still come; below 0: they came before they were expected.
        self.missing = 0
        #: When each message came, while somebody wants to know.
        self.times: list[float] | None = None
        #: Bytes of the present frame that are still to come, whether it counts, and what is here of a header.
        self._rest = 0
        self._counts = False
        self._head = b""

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._rest and not self._head

    def take(self, data: bytearray, size: int) -> int:
        """Messages that are whole with these bytes, and count."""
        if self._rest > size:
            self._rest -= size
            return 0
        found, at = int(self._counts and self._rest > 0), self._rest
        if self._head:
            data = bytearray(self._head) + data[:size]
            size, self._head = len(data), b""
        self._rest = 0
        while at < size:
            length, ahead = data[at + 1] & 0x7F if at + 1 < size else 0, 2
            if length >= 126:
                ahead = 4 if length == 126 else 10
            if at + ahead > size:
                self._head = bytes(data[at:size])
                break
            if length >= 126:
                length = int.from_bytes(data[at + 2 : at + ahead], "big")
            if data[at] & 0x0F == _PING:
                self._answer(bytes(data[at + ahead : at + ahead + length]))
            at += ahead + length
            self._counts = length >= COUNTED_BYTES
            if at <= size:
                found += self._counts
            else:
                self._rest = at - size
        return found

    def _answer(self, payload: bytes) -> None:
        # A mask of zeros leaves the payload as it is.
        self.socket.sendall(bytes((0x80 | _PONG, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
