"""A server that answers whatever a test tells it to, byte for byte. One thread a connection; `with` ends them all."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

#: What to do on a connection once a request was read: send bytes, or anything else that a socket can do.
Answer = bytes | Callable[[socket.socket], None]


def http(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def answer(value: Any, status: str = "200 OK") -> bytes:
    return http(json.dumps(value).encode(), status)


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A WebSocket frame as a server sends it."""
    size = len(payload)
    length = (
        bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x7f" + size.to_bytes(8)
    )
    return bytes([(0x80 if final else 0) | opcode]) + length + payload


def stay(connection: socket.socket) -> None:
    """Says nothing more, until the other end or the end of the test closes the connection."""
    while connection.recv(1 << 16):
        pass


def says(*parts: bytes, then: Callable[[socket.socket], None] | None = None) -> Callable[[socket.socket], None]:
    """Sends these and hangs up, or does what comes `then`."""

    def send(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))
        if then is not None:
            then(connection)

    return send


#: The least a ComfyUI says for `connect` to go on to its socket.
USUAL: Mapping[str, Answer] = {
    "/system_stats": answer({"system": {"comfyui_version": "0.3.64"}, "devices": []}),
    "/api/jobs": http(status="404 Not Found"),
    "/history": answer({}),
    "/queue": answer({"queue_running": [], "queue_pending": []}),
}


class Hostile:
    """Routes are beginnings of paths; the longest that fits answers. `/ws` answers after a good handshake."""

    def __init__(self, routes: Mapping[str, Answer]) -> None:
        self._routes = routes
        #: False: `/ws` gets its answer instead of a handshake.
        self.shakes_hands = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: The heads of all requests, oldest first.
        self.heard: list[str] = []
        #: Connections that this end has closed.
        self.hung_up = 0

    @property
    def connections(self) -> int:
        """How many there were so far."""
        return len(self._open)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self._answer(connection)
        self.hung_up += 1

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            while True:
                path, head = self._request(connection)
                self.heard.append(head)
                if path.startswith("/ws") and "/ws" in self._routes and self.shakes_hands:
                    connection.sendall(_accepted(head))
                what = self._routes[max((r for r in self._routes if path.startswith(r)), key=len)]
                if callable(what):
                    what(connection)
                    return
                connection.sendall(what)

    def _request(self, connection: socket.socket) -> tuple[str, str]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += _more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        text = head.decode()
        length = next((line for line in text.splitlines() if line.lower().startswith("content-length:")), ":0")
        while len(body) < int(length.partition(":")[2]):
            body += _more(connection)
        return text.split(" ")[1], text


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    return data


def _accepted(head: str) -> bytes:
    key = next(line for line in head.splitlines() if line.startswith("Sec-WebSocket-Key:")).partition(":")[2].strip()
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()
