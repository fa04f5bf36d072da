"""`python -m tests.web.drain PORT COUNT [STALLED]`: browsers that read and forget, in a process of their own.

Says "ready" once all are connected. The first STALLED of them never read. Ends when its standard input does, and then
prints how many bytes each of the others took.
"""

from __future__ import annotations

import base64
import os
import selectors
import socket
import sys


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


def main(port: int, count: int, stalled: int = 0) -> None:
    sockets = [connect(port) for _ in range(count)]
    taken = dict.fromkeys(sockets[stalled:], 0)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for sock in taken:
            selector.register(sock, selectors.EVENT_READ, sock)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    print(*taken.values(), flush=True)
                    return
                browser: socket.socket = key.data
                data = browser.recv(1 << 18)
                taken[browser] += len(data)
                if not data:
                    selector.unregister(browser)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
