"""`python -m scripts.rivals.zguide lbbroker`, `proxy` or `workers …`: brokers of messages in memory, and no more: the
load balancing broker of the ZeroMQ guide (chapter 3) in Python, libzmq's own proxy in C, and their workers.

lbbroker hands each job to the worker that has been idle longest; proxy deals them out in turn as they come.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from typing import Any, Final

import zmq

#: Jobs that a client has under way, as of the fleet's.
WINDOW: Final = 200


def lbbroker() -> None:
    context = zmq.Context.instance()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    _tell(front, back)
    idle: deque[bytes] = deque()
    both, backs = zmq.Poller(), zmq.Poller()
    both.register(front, zmq.POLLIN)
    for poller in (both, backs):
        poller.register(back, zmq.POLLIN)
    while True:
        # Clients are heard only while a worker is idle.
        ready = dict((both if idle else backs).poll())
        if back in ready:
            worker, _, *rest = back.recv_multipart()
            idle.append(worker)
            if rest[0] != b"READY":
                front.send_multipart([rest[0], b"", *rest[2:]])
        if front in ready and idle:
            client, _, body = front.recv_multipart()
            back.send_multipart([idle.popleft(), b"", client, b"", body])


def proxy() -> None:
    context = zmq.Context.instance()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    _tell(front, back)
    zmq.proxy(front, back)


def workers(endpoint: str, kind: str, count: str) -> None:
    """REQ workers of lbbroker, or REP workers of proxy, all in this process."""
    context, poller = zmq.Context.instance(), zmq.Poller()
    for _ in range(int(count)):
        socket = context.socket(zmq.REQ if kind == "lbbroker" else zmq.REP)
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        if kind == "lbbroker":
            socket.send(b"READY")
    print("ready workers", flush=True)
    while True:
        for socket, _ in poller.poll():
            *address, body = socket.recv_multipart()
            json.loads(body)
            socket.send_multipart([*address, b"done"])


def client(endpoint: str) -> Any:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(endpoint)

    def run(workflows: list[Any]) -> None:
        left, under_way = deque(workflows), 0
        while left or under_way:
            while left and under_way < WINDOW:
                socket.send_multipart([b"", json.dumps(left.popleft()).encode()])
                under_way += 1
            if not socket.poll(60_000):
                raise SystemExit("bench: no reply from a broker of the ZeroMQ guide")
            socket.recv_multipart()
            under_way -= 1

    return run


def _tell(front: Any, back: Any) -> None:
    for socket in (front, back):
        socket.bind("tcp://127.0.0.1:*")
    ends = [socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode() for socket in (front, back)]
    print("ready", *ends, flush=True)


if __name__ == "__main__":
    {"lbbroker": lbbroker, "proxy": proxy, "workers": workers}[sys.argv[1]](*sys.argv[2:])
