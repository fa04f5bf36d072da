"""Clients that the measuring scripts hold against each other: of the fleet, of its broker, and of a ComfyUI itself."""

from __future__ import annotations

import http.client
import itertools
import json
import secrets
import uuid
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import zmq

from broker.protocol.codec import BROKER_TO_CLIENT, decode, encode
from broker.runtime import sockets
from broker.runtime.settings import Network

#: How long a Contract waits for its broker.
WAIT_MS = 10_000

#: In Python the check of UTF-8 takes 0.2 ms a KB, which no browser needs and would be counted as the fleet's time.
_UNCHECKED: Final[dict[str, Any]] = {"skip_utf8_validation": True}


class Refused(SystemExit):
    """An answer that ends a measurement, unless whoever asked goes on without it."""


class Api:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Refused(f"bench: {method} {path} answered {answer.status}: {content[:300]!r}")
        return content

    def close(self) -> None:
        self._connection.close()


class Direct:
    """A client of ComfyUI itself: prompt, its events, the picture."""

    def __init__(self, url: str) -> None:
        import websocket

        self._id = uuid.uuid4().hex
        self._api = Api(url)
        self._events = websocket.create_connection(f"ws{url[4:]}/ws?clientId={self._id}", timeout=60, **_UNCHECKED)

    def run(self, workflow: Any) -> str:
        """Returns what ComfyUI called it, once its picture is here."""
        sent = json.loads(self._api.call("POST", "/prompt", {"prompt": workflow, "client_id": self._id}))
        prompt_id: str = sent["prompt_id"]
        picture: Any = None
        while True:
            frame = self._events.recv()
            if not isinstance(frame, str):
                continue
            event = json.loads(frame)
            data = event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if event["type"] == "executed":
                picture = data["output"]["images"][0]
            if event["type"] == "executing" and data["node"] is None:
                break
        self._api.call("GET", f"/view?{urlencode(picture)}")
        return prompt_id

    def close(self) -> None:
        self._events.close()
        self._api.close()


class Through:
    """A client of the fleet: submit, its events, the picture."""

    def __init__(self, url: str) -> None:
        import websocket

        self._api = Api(url)
        self._events = websocket.create_connection(f"ws{url[4:]}/api/v1/events", timeout=60, origin=url, **_UNCHECKED)

    def run(self, workflow: Any) -> str:
        """Returns the job's id, once its picture is here."""
        sent = json.loads(self._api.call("POST", "/api/v1/jobs", {"workflow": workflow}))
        while True:
            frame = self._events.recv()
            if not isinstance(frame, str):
                continue
            event = json.loads(frame)
            job = event.get("job", {})
            if event["type"] == "job" and job["id"] == sent["id"] and job["state"] in ("succeeded", "failed"):
                break
        if job["state"] != "succeeded":
            raise SystemExit(f"bench: a job failed: {job['error']}")
        self._api.call("GET", job["outputs"][0]["url"])
        job_id: str = sent["id"]
        return job_id

    def close(self) -> None:
        self._events.close()
        self._api.close()


def pictures(width: int = 64, height: int = 64) -> Iterator[Any]:
    """Workflows without a model, no two alike: what ComfyUI has just made, it does not make again."""
    for colour in itertools.count(1):
        blank = {"width": width, "height": height, "batch_size": 1, "color": colour % (1 << 24)}
        yield {
            "1": {"class_type": "EmptyImage", "inputs": blank},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
        }


class Contract:
    """A client that speaks the contract to the broker itself."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        routing_id = secrets.token_hex(16).encode()
        self._socket = sockets.dealer(self._context, "clients", Network(clients=endpoint), None, routing_id)

    def send(self, kind: type[Any], **fields: Any) -> None:
        """A request whose reply is received later."""
        said = kind(request_id=secrets.token_hex(16), **fields)
        if not self._socket.poll(WAIT_MS, zmq.POLLOUT):
            raise TimeoutError(f"no broker within {WAIT_MS} ms")
        self._socket.send_multipart(encode(said), zmq.NOBLOCK)

    def receive(self, wait_ms: int = WAIT_MS) -> Any:
        """The next reply; None when none came in time."""
        if not self._socket.poll(wait_ms):
            return None
        return decode(self._socket.recv_multipart(), BROKER_TO_CLIENT)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
