"""A TCP relay that lets every byte wait, as a long line does: for measuring between processes of one machine.

A thread for each direction of each connection. What is sent while something waits leaves as much later as it came
later: the line delays and does not narrow.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Self


class Relay:
    """`with Relay(port, delay_ms=20) as relay: … relay.port`. delay_ms: each way."""

    def __init__(self, port: int, *, delay_ms: float) -> None:
        self._to = ("127.0.0.1", port)
        self._delay_s = delay_ms / 1_000
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _start(self, work: object, *args: object) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += (near, far)
                for source, sink in ((near, far), (far, near)):
                    line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    self._start(self._take, source, line)
                    self._start(self._give, sink, line)

    def _take(self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(256 << 10)
            except OSError:
                data = b""
            line.put((time.monotonic() + self._delay_s, data))

    def _give(self, sink: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                at_s, data = line.get()
                time.sleep(max(0.0, at_s - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
