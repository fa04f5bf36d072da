"""`python -m scripts.rivals.loop ENDPOINT`: the usual way with gevent-websocket, a loop of sends over all who watch."""

# ruff: noqa: E402  # as in web/__main__.py
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
from typing import Any

import gevent
import zmq.green as zmq
from geventwebsocket.handler import WebSocketHandler

from scripts.rivals.bare import Bare

watching: set[Any] = set()


def serve(environ: Any, _: Any) -> list[bytes]:
    socket = environ["wsgi.websocket"]
    watching.add(socket)
    while socket.receive() is not None:
        continue
    watching.discard(socket)
    return []


def forward(endpoint: str) -> None:
    source: Any = zmq.Context().socket(zmq.SUB)
    source.rcvhwm = 100_000
    source.subscribe(b"loop")
    source.connect(endpoint)
    while True:
        _, kind, data = source.recv_multipart()
        message = data.decode() if kind == b"t" else data
        for each in list(watching):
            each.send(message)


if __name__ == "__main__":
    server = Bare(("127.0.0.1", 0), serve, handler_class=WebSocketHandler, log=None)
    server.start()
    print(f"ready http://127.0.0.1:{server.server_port}", flush=True)
    gevent.spawn(forward, sys.argv[1]).get()
