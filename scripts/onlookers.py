"""Browsers that only watch: WebSockets of the page's events, whose bytes are thrown away as they come, by a thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Final, Self
from urllib.parse import urlsplit

#: Its answer does not matter here, so any key will do.
_KEY: Final = "AAAAAAAAAAAAAAAAAAAAAA=="


class Onlookers:
    """`with Onlookers(fleet.url) as onlookers: onlookers.grow_to(1_000)`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._to = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
        self._selector = selectors.DefaultSelector()
        self._open: list[socket.socket] = []
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        for each in self._open:
            each.close()
        self._selector.close()

    def grow_to(self, count: int) -> None:
        """Returns once the server has let so many in."""
        while len(self._open) < count:
            each = socket.create_connection(self._to, timeout=60)
            each.sendall(
                f"GET /api/v1/events HTTP/1.1\r\nHost: {self._to[0]}:{self._to[1]}\r\nOrigin: {self._url}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {_KEY}\r\n\r\n".encode()
            )
            said = each.recv(1 << 16)
            if not said.startswith(b"HTTP/1.1 101"):
                raise SystemExit(f"bench: a browser was not let in: {said[:200]!r}")
            each.setblocking(False)
            self._open.append(each)
            self._selector.register(each, selectors.EVENT_READ)

    def _read(self) -> None:
        room = bytearray(1 << 20)
        while not self._over:
            for key, _ in self._selector.select(0.2):
                with contextlib.suppress(BlockingIOError):
                    if not key.fileobj.recv_into(room):  # type: ignore[union-attr]
                        raise SystemExit("bench: the server let a browser go")
