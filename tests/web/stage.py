"""A web process for one test, in this process: a fake broker behind it, and clients that speak HTTP and WebSocket."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest
import zmq.green as zmq

from broker.runtime.config import Config
from broker.runtime.settings import Web as WebSettings
from comfyui.catalogue import capability_digest
from tests.web.fake_broker import FakeBroker, a_worker
from web import feed
from web.frames import Opcode
from web.process import Web

#: How long a condition may take on a busy machine; nothing is asserted about speed by it.
PATIENCE_S = 60.0

_CHOICE = [["euler", "heun"]]
OBJECT_INFO: dict[str, Any] = {
    name: {
        "input": {"required": inputs},
        "output": outputs,
        "output_node": name in ("SaveImage",),
        "python_module": "nodes",
    }
    for name, inputs, outputs in (
        (
            "CheckpointLoaderSimple",
            {"ckpt_name": [["juggernautXL_v8Rundiffusion.safetensors"]]},
            ["MODEL", "CLIP", "VAE"],
        ),
        ("CLIPTextEncode", {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}, ["CONDITIONING"]),
        (
            "EmptyLatentImage",
            {
                "width": ["INT", {"default": 512, "min": 16, "max": 16384}],
                "height": ["INT", {"default": 512, "min": 16, "max": 16384}],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            },
            ["LATENT"],
        ),
        (
            "KSampler",
            {
                "model": ["MODEL"],
                "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                "steps": ["INT", {"min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"min": 0.0, "max": 100.0}],
                "sampler_name": [["euler", "heun"]],
                "scheduler": [["normal", "karras"]],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
                "denoise": ["FLOAT", {"min": 0.0, "max": 1.0}],
            },
            ["LATENT"],
        ),
        ("VAEDecode", {"samples": ["LATENT"], "vae": ["VAE"]}, ["IMAGE"]),
        ("SaveImage", {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}, []),
        ("LoadImage", {"image": [["example.png"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
    )
}


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what if what else "the condition did not come true"
        gevent.sleep(0.005)
    return value


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code word of an error in the one shape, all of it checked."""
        assert self.headers["content-type"] == "application/json", self.body
        assert self.json.keys() == {"error"}
        error = self.json["error"]
        assert error.keys() == {"code", "message", "details"}
        assert error["message"] and "Traceback" not in error["message"]
        assert isinstance(error["details"], dict)
        return str(error["code"])


class Stage:
    """One web process and its broker."""

    def __init__(self, **settings: Any) -> None:
        self.context: Any = zmq.Context()
        self.broker = FakeBroker(self.context)
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="comfyfleet-web-")
        self.web = self._start()
        self._open: list[Any] = []

    def _start(self) -> Web:
        given = {"port": 0, "reply_ms": 30_000, "templates": Path(self._folder.name) / "templates", **self._settings}
        web = Web(Config(network=self.broker.network, web=WebSettings(**given)), None)
        web.start(lambda: None)
        until(lambda: web.hub.connected, "the web process does not reach the broker")
        until(self.broker.watched, "the web process does not watch the broker")
        self.port = web.server.port
        return web

    def close(self) -> None:
        for opened in self._open:
            opened.close()
        self.web.stop()
        self.broker.close()
        self.context.destroy(linger=0)
        self._folder.cleanup()

    def with_worker(self, object_info: Mapping[str, Any] | None = None) -> None:
        """A worker that can run the text-to-image template, known to the web process."""
        digest, document = capability_digest(object_info if object_info is not None else OBJECT_INFO)
        self.broker.store(document)
        self.broker.meet(a_worker(capabilities=digest))
        until(lambda: digest in self.web.hub.abilities())

    # ---- HTTP

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own. body: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            given = dict(headers) if headers else {}
            raw = body
            if body is not None and not isinstance(body, bytes):
                raw = json.dumps(body).encode()
                given.setdefault("Content-Type", "application/json")
            connection.request(method, path, raw, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def raw(self, data: bytes) -> RawConnection:
        """A bare connection on which these bytes were sent."""
        connection = RawConnection(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))
        self._open.append(connection)
        connection.send(data)
        return connection

    # ---- WebSocket

    def handshake(self, **changes: str | None) -> RawConnection:
        """A connection on which a handshake was sent; a header given as None is left out."""
        headers: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Origin": f"http://127.0.0.1:{self.port}",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return self.raw(("GET /api/v1/events HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())

    def watch(self, **changes: str | None) -> Watcher:
        """A browser that watches, past its handshake."""
        connection = self.handshake(**changes)
        head = connection.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return Watcher(connection)


class RawConnection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()

    def more(self) -> bool:
        """Read what there is; False at the end of the connection."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def head(self) -> bytes:
        """The head of the next response."""
        while b"\r\n\r\n" not in self.buffer:
            assert self.more(), f"the connection ended with {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        while self.more():
            continue
        return self.buffer

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            assert self.more(), "the connection ended in the middle of a frame"
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken


def masked(opcode: int, payload: bytes, *, final: bool = True, first: int | None = None) -> bytes:
    """A client's frame. `first`: its first byte, whatever that means."""
    key = os.urandom(4)
    head = bytes([first if first is not None else (0x80 if final else 0) | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


class Watcher:
    """A browser's side of a WebSocket."""

    def __init__(self, connection: RawConnection) -> None:
        self.connection = connection

    def frame(self) -> tuple[Opcode, bytes]:
        first, second = self.connection.exactly(2)
        assert first & 0xF0 == 0x80 and second < 128, "a server's frame is whole and not masked"
        size = second
        if second >= 126:
            size = int.from_bytes(self.connection.exactly(2 if second == 126 else 8), "big")
        return Opcode(first & 0x0F), self.connection.exactly(size)

    def told(self) -> tuple[Opcode, bytes]:
        """The next frame, pings and ticks left out: they come when the time has."""
        while True:
            opcode, data = self.frame()
            if opcode is not Opcode.PING and (opcode, data) != (Opcode.TEXT, b'{"type":"tick"}'):
                return opcode, data

    def message(self) -> Any:
        """The next text message, pings and ticks left out."""
        opcode, data = self.told()
        assert opcode is Opcode.TEXT, (opcode, data)
        return json.loads(data)

    def until(self, kind: str) -> Any:
        """The next message of this type."""
        while (message := self.message())["type"] != kind:
            continue
        return message

    def closed(self) -> int:
        """The close code that ends this connection, whatever comes before it; the end must follow."""
        while True:
            opcode, data = self.frame()
            if opcode is Opcode.CLOSE:
                code = int.from_bytes(data[:2], "big")
                with contextlib.suppress(OSError):
                    self.connection.send(masked(Opcode.CLOSE, data[:2]))
                self.connection.rest()
                return code

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def say(self, text: str) -> None:
        self.send(masked(Opcode.TEXT, text.encode()))


@contextlib.contextmanager
def staged(*, quiet_s: float = 3 * PATIENCE_S, **settings: Any) -> Iterator[Stage]:
    """quiet_s: how long nothing may be published before the web process asks whether it missed something. Unless that
    is what a test is about, never: whatever was published a moment before may come in the answer, and then a browser is
    sent a snapshot instead of news."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "FIRST_QUIET_S", quiet_s)
        stage = Stage(**settings)
        try:
            yield stage
        finally:
            stage.close()
