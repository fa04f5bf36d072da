"""Browsers that only listen: the events of a fleet over many WebSockets, read by one loop, with the time each came."""

from __future__ import annotations

import base64
import functools
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 30.0


class Browser:
    """One WebSocket. Reads when it is told to, so it can also stop."""

    def __init__(self, url: str, *, receive_bytes: int = 0) -> None:
        """receive_bytes: what its kernel may hold for it; 0: as usual."""
        parts = urlsplit(url)
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(CONNECT_S)
        self.socket.connect((parts.hostname, parts.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head.decode(errors="replace"))
        self.socket.setblocking(False)
        #: The close code once it is closed; 0 when it ended without one.
        self.closed: int | None = None
        self._waiting = bytearray()

    def read(self) -> list[Any]:
        """The events that have arrived."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data and self.closed is None:
            self.closed = 0
        self._waiting += data
        found = []
        while (frame := self._frame()) is not None:
            opcode, body = frame
            if opcode == 0x1:
                found.append(_event(body))
            elif opcode == 0x8 and self.closed is None:
                self.closed = int.from_bytes(body[:2], "big")
            elif opcode == 0x9:
                self.socket.sendall(b"\x8a\x80" + bytes(4))  # a pong of nothing, masked with nothing
        return found

    def close(self) -> None:
        self.socket.close()

    def _frame(self) -> tuple[int, bytes] | None:
        """The next whole frame, if one has arrived."""
        waiting = self._waiting
        if len(waiting) < 2:
            return None
        size, begin = waiting[1] & 0x7F, 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            if len(waiting) < begin:
                return None
            size = int.from_bytes(waiting[2:begin], "big")
        if len(waiting) < begin + size:
            return None
        opcode, body = waiting[0] & 0x0F, bytes(waiting[begin : begin + size])
        del waiting[: begin + size]
        return opcode, body


@functools.lru_cache(maxsize=1_000)
def _event(body: bytes) -> Any:
    """All browsers get the same bytes: each event is understood once, else the audience would be most of the load."""
    return json.loads(body)


class Audience:
    """Browsers that read as fast as they can."""

    def __init__(self, url: str, count: int) -> None:
        self.browsers = [Browser(url) for _ in range(count)]
        #: Milliseconds from the end of a job, as its record says, to each browser's hearing of it.
        self.delays_ms: list[float] = []
        self._selector = selectors.DefaultSelector()
        for browser in self.browsers:
            self._selector.register(browser.socket, selectors.EVENT_READ, browser)

    def listen(self, until: Callable[[], bool]) -> None:
        while not until():
            for key, _ in self._selector.select(0.05):
                browser: Browser = key.data
                for event in browser.read():
                    self._hear(event, time.time() * 1_000)
                if browser.closed is not None:
                    self._selector.unregister(browser.socket)

    def _hear(self, event: Any, now_ms: float) -> None:
        if event["type"] == "job" and event["job"]["finished_ms"] is not None:
            self.delays_ms.append(now_ms - event["job"]["finished_ms"])

    def close(self) -> None:
        self._selector.close()
        for browser in self.browsers:
            browser.close()
