"""Visitors of a web server, in a process of their own: each keeps its connection and asks again once it is answered.

Bodies of answers are thrown away as they come: what a visitor costs is little beside any server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: str = ""

    def sent_to(self, port: int) -> bytes:
        length = f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n" if self.body else ""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{self.headers}{length}\r\n"
        return head.encode() + self.body


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """What a number of requests found."""

    seconds: float
    delays_ms: list[float]
    statuses: Counter[int]

    @property
    def rate(self) -> float:
        return len(self.delays_ms) / self.seconds


@contextlib.contextmanager
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process for what must not share the server's: `with elsewhere() as other: other.submit(visit, …).result()`."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """A pool's process holds the queue open itself that it waits at, and would outlive a parent that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def visit(port: int, requests: Sequence[Request], connections: int) -> Visit:
    """Ask all of it, over so many connections, one request at a time on each."""
    waiting = iter([request.sent_to(port) for request in requests])
    delays_ms: list[float] = []
    statuses: Counter[int] = Counter()
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for data in [next(waiting) for _ in range(min(connections, len(requests)))]:
            visitor = Visitor(port, data)
            selector.register(visitor.socket, selectors.EVENT_READ, visitor)
        while selector.get_map():
            for key, _ in selector.select():
                visitor = key.data
                if not visitor.answered():
                    continue
                delays_ms.append(visitor.delay_ms)
                statuses[visitor.status] += 1
                if visitor.closes:
                    selector.unregister(visitor.socket)
                    visitor.socket.close()
                if (following := next(waiting, None)) is None:
                    if not visitor.closes:
                        selector.unregister(visitor.socket)
                        visitor.socket.close()
                elif visitor.closes:
                    visitor = Visitor(port, following)
                    selector.register(visitor.socket, selectors.EVENT_READ, visitor)
                else:
                    visitor.ask(following)
    return Visit(time.perf_counter() - began, delays_ms, statuses)


class Visitor:
    """One connection."""

    def __init__(self, port: int, data: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._room = bytearray(1 << 20)
        self.ask(data)

    def ask(self, data: bytes) -> None:
        self._head = b""
        #: Bytes of the answer that have not come; None until its head has.
        self._missing: int | None = None
        self.status, self.closes, self.delay_ms = 0, False, 0.0
        self._asked = time.perf_counter()
        self.socket.sendall(data)

    def answered(self) -> bool:
        """Take what there is; True at the end of the answer."""
        got = self.socket.recv_into(self._room)
        if not got:
            raise SystemExit("bench: a server closed a connection in the middle of an answer")
        if self._missing is None:
            self._head += self._room[:got]
            head, ends, rest = self._head.partition(b"\r\n\r\n")
            if not ends:
                return False
            fields = head.lower()
            self.status, self.closes = int(head[9:12]), b"\r\nconnection: close" in fields
            length = fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._missing = (int(length) if self.status != 304 else 0) - len(rest)
        else:
            self._missing -= got
        if self._missing > 0:
            return False
        self.delay_ms = (time.perf_counter() - self._asked) * 1_000
        return True
