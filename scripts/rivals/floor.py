"""`python -m scripts.rivals.floor ENDPOINT`: a bare loop of sendall over ready frames, the least Python can do. Its
WebSockets know a handshake and nothing else."""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
import threading

import zmq

from web.frames import Opcode, encode

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
watching: list[socket.socket] = []


def accept(listener: socket.socket) -> None:
    while True:
        each, _ = listener.accept()
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += each.recv(4_096)
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        answer = base64.b64encode(hashlib.sha1(key + GUID).digest())
        each.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n"
        )
        watching.append(each)


def main(endpoint: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    threading.Thread(target=accept, args=[listener], daemon=True).start()
    source: zmq.Socket[bytes] = zmq.Context().socket(zmq.SUB)
    source.rcvhwm = 100_000
    source.subscribe(b"floor")
    source.connect(endpoint)
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        _, kind, data = source.recv_multipart()
        frame = encode(Opcode.TEXT if kind == b"t" else Opcode.BINARY, data)
        for each in tuple(watching):
            try:
                each.sendall(frame)
            except OSError:
                watching.remove(each)


if __name__ == "__main__":
    main(sys.argv[1])
