"""A stand-in for the broker's loop: four bound sockets behind the gate, and peers that try to get in.

`python -m tests.process.door serve CONFIG` and `… knock CONFIG NAME` do the same in processes of their own.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from broker.runtime import keys, sockets
from broker.runtime.config import load
from broker.runtime.gate import Allowed, Gate
from broker.runtime.keys import Identity
from broker.runtime.settings import Network

Socket = zmq.Socket[bytes]
#: How a try to connect ends.
ENDS: dict[int, str] = {
    zmq.Event.HANDSHAKE_SUCCEEDED: "in",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "refused",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "refused",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "refused",
    zmq.Event.DISCONNECTED: "refused",
}
LONG_S = 30.0
#: Ports that the kernel chooses.
ANY_PORT = Network(
    clients="tcp://127.0.0.1:*", workers="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*", files="tcp://127.0.0.1:*"
)


class Door:
    def __init__(self, folder: Path, network: Network, identity: Identity) -> None:
        self._context: zmq.Context[Socket] = zmq.Context()
        self.allowed = Allowed(folder)
        self.gate = Gate(self._context, self.allowed)
        self.bound = {
            name: sockets.router(self._context, name, network, identity) for name in ("clients", "workers", "files")
        }
        self.bound["events"] = sockets.publisher(self._context, network, identity)
        endpoints: dict[str, Any] = {name: sockets.endpoint_of(socket) for name, socket in self.bound.items()}
        self.network = dataclasses.replace(network, **endpoints)

    def turn(self, timeout_ms: int = 20) -> list[tuple[str, list[zmq.Frame]]]:
        """Answer handshakes; give back what has arrived, by socket."""
        poller = zmq.Poller()
        for socket in (self.gate.socket, *self.bound.values()):
            poller.register(socket, zmq.POLLIN)
        readable = dict(poller.poll(timeout_ms))
        if self.gate.socket in readable:
            self.gate.answer()
        return [(name, socket.recv_multipart(copy=False)) for name, socket in self.bound.items() if socket in readable]

    def close(self) -> None:
        for socket in self.bound.values():
            socket.close()
        self.gate.close()
        self._context.term()


@contextmanager
def opened(folder: Path, network: Network, identity: Identity) -> Iterator[Door]:
    door = Door(folder, network, identity)
    try:
        yield door
    finally:
        door.close()


class Watched(zmq.Context[Socket]):
    """A context whose sockets are monitored from the first: libzmq tells of a refusal once, and may do so at once."""

    def socket(self, *args: Any, **kwargs: Any) -> Socket:
        made = super().socket(*args, **kwargs)
        if made.type != zmq.PAIR:  # which the monitor itself is
            made.get_monitor_socket()
        return made


@dataclasses.dataclass
class Knock:
    """A peer at one socket, and what became of its try."""

    socket: Socket
    monitor: Socket
    _context: zmq.Context[Socket]

    def end(self) -> str | None:
        """ "in", "refused", or None while it is open."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            if event in ENDS:
                return ENDS[event]
        return None

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()
        self._context.term()


@contextmanager
def knock(name: str, network: Network, identity: Identity | None, routing_id: bytes = b"peer") -> Iterator[Knock]:
    """Dial the broker's socket `name` as worker or web would. Own context, as in a process of its own."""
    context = Watched()
    if name == "events":
        socket = sockets.subscriber(context, network, identity, [b""])
    else:
        socket = sockets.dealer(context, name, network, identity, routing_id)
    peer = Knock(socket, socket.get_monitor_socket(), context)
    try:
        yield peer
    finally:
        peer.close()


def ended(door: Door, peer: Knock) -> str:
    """How the peer's try ends, while the door does its work."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        door.turn()
        if (end := peer.end()) is not None:
            return end
    raise AssertionError("neither in nor refused")


def heard(door: Door) -> tuple[str, list[zmq.Frame]]:
    """The next message at the door."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        if messages := door.turn():
            assert len(messages) == 1
            return messages[0]
    raise AssertionError("nothing arrived")


def _serve(path: Path) -> None:
    config = load(path, environ={})
    identity = keys.identity(config, "broker")
    assert identity is not None
    with opened(config.security.keys, config.network, identity) as door:
        print("ready", flush=True)
        while True:
            for name, frames in door.turn(1_000):
                peer = door.allowed.peer(sockets.key_of(frames[-1]), name)
                print(name, peer.name if peer else "nobody", frames[-1].bytes.decode(), flush=True)


def _knock(path: Path, name: str) -> None:
    config = load(path, environ={})
    with knock(name, config.network, keys.identity(config, config.worker.name)) as peer:
        deadline = time.monotonic() + LONG_S
        end: str | None = None
        while end is None and time.monotonic() < deadline:
            peer.monitor.poll(100)
            end = peer.end()
        print(end, flush=True)
        if end == "in":
            peer.socket.send(b"hello")


def main(command: str, *arguments: Any) -> None:
    if command == "serve":
        _serve(Path(arguments[0]))
    else:
        _knock(Path(arguments[0]), arguments[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
