"""HTTP to one ComfyUI, bounded in time and size. The only file that knows urllib3; it owns the HTTP sockets.

Every call ends within its time limit, whatever the server does: a worker whose ComfyUI hangs must still send its
heartbeats. No redirect is followed, nothing is retried, no proxy is used and no cookie kept. Only plain http: a worker
stands beside its container, on loopback or a private network.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from comfyui.errors import ComfyError, ComfyFailed, ComfyUnreachable
from comfyui.words import plain

REPLY_BYTES: Final = 64 << 20  # /queue carries whole workflows, /object_info all node classes
CHUNK_BYTES: Final = 64 << 10
_HINTS: Final[Mapping[int, str]] = {
    401: "it asks for a login; switch its web authentication off and keep it on a private network",
    403: "a proxy or its own origin check stands in the way",
    404: "is this a ComfyUI?",
    405: "is this a ComfyUI?",
}


class Timer:
    """The one point in time by which everything now under way must end. Shared by all sockets of a client."""

    def __init__(self) -> None:
        self.by = 0.0  # by time.monotonic()

    def left_s(self) -> float:
        left = self.by - time.monotonic()
        if left <= 0:
            raise TimeoutError("out of time")
        return left


class TimedSocket(socket.socket):
    """A connected socket each of whose operations ends by the timer, so that bytes that trickle in cannot stretch
    a call. Without a timer it is left as it is set, blocking or not."""

    def __init__(self, connected: socket.socket, timer: Timer) -> None:
        super().__init__(connected.family, connected.type, connected.proto, connected.detach())
        self.timer: Timer | None = timer

    def _arm(self) -> None:
        if self.timer is not None:
            self.settimeout(self.timer.left_s())

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        self._arm()
        return super().recv(bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        self._arm()
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: Any, flags: int = 0, /) -> int:
        self._arm()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        self._arm()
        super().sendall(data, flags)


class _Connection(HTTPConnection):
    def __init__(self, *args: Any, timer: Timer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer = timer

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # urllib3 puts it into the text of its errors

    def connect(self) -> None:
        super().connect()
        self.sock = TimedSocket(self.sock, self._timer)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


class Http:
    """One server's calls. Not for use by several threads."""

    def __init__(self, url: str, *, limit_s: float) -> None:
        """`url` is http://host:port. Raises: ValueError when it is anything else."""
        self.host, self.port = _address(url)
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self.limit_s = limit_s
        self.timer = Timer()
        # Several, because the chunks of outputs are fetched in turns, and between other calls.
        self._pool = _Pool(self.host, self.port, maxsize=8, retries=False, timer=self.timer)

    def close(self) -> None:
        self._pool.close()

    def by(self, share: float = 1.0) -> float:
        """The end of a call that begins now and may use this share of the limit."""
        return time.monotonic() + self.limit_s * share

    def call(
        self,
        method: str,
        path: str,
        *,
        by: float,
        query: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        also: frozenset[int] = frozenset(),
    ) -> Reply:
        """One exchange. Returns the answer when its status is 200 or one in `also`.

        An iterable body is sent as it is drawn: each part may take the whole limit, and so may the answer after it.
        Raises: ComfyUnreachable for all other statuses, no answer, an answer over 64 MiB or one that ends too early.
        """
        if body is not None and not isinstance(body, bytes):
            body = self._paced(body)
        try:
            response = self._open(method, path, by=by, query=query, body=body, headers=headers)
            try:
                if response.status != 200 and response.status not in also:
                    raise ComfyUnreachable(self._odd_status(method, path, response))
                chunks = list(_limited(response, REPLY_BYTES, f"{method} {path}", ComfyUnreachable))
                return Reply(response.status, b"".join(chunks))
            except BaseException:
                response.close()  # what is left of the answer must not be read as the next one
                raise
            finally:
                response.release_conn()
        except (HTTPError, OSError) as e:
            raise ComfyUnreachable(self._no_answer(method, path, e)) from e

    def stream(self, path: str, query: Mapping[str, str], *, limit_bytes: int) -> Iterator[bytes]:
        """The body of a GET in chunks; each may take the whole time limit.

        Raises: ComfyUnreachable as `call`. ComfyFailed when the server refuses (it is gone) or sends too much.
        """
        try:
            response = self._open("GET", path, by=self.by(), query=query)
            whole = False
            try:
                if response.status in (400, 403, 404):
                    raise ComfyFailed(f"ComfyUI at {self.url} no longer has {plain(query.get('filename'))!r}")
                if response.status != 200:
                    raise ComfyUnreachable(self._odd_status("GET", path, response))
                for chunk in _limited(response, limit_bytes, plain(query.get("filename")), ComfyFailed):
                    yield chunk
                    self.timer.by = self.by()
                whole = True
            finally:
                if not whole:
                    response.close()
                response.release_conn()
        except (HTTPError, OSError) as e:
            raise ComfyUnreachable(self._no_answer("GET", path, e)) from e

    def _open(
        self,
        method: str,
        path: str,
        *,
        by: float,
        query: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> BaseHTTPResponse:
        self.timer.by = by
        target = f"{path}?{urlencode(query)}" if query else path
        return self._pool.urlopen(
            method,
            target,
            body=body,
            headers={"User-Agent": "comfyfleet", **(headers if headers is not None else {})},
            timeout=Timeout(total=self.timer.left_s()),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _paced(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            self.timer.by = self.by()
            yield part
        self.timer.by = self.by()

    def _odd_status(self, method: str, path: str, response: BaseHTTPResponse) -> str:
        answered = f"ComfyUI at {self.url} answered {response.status} to {method} {path}"
        if 300 <= response.status < 400:
            return f"{answered}; redirects are not followed, give the address it really has"
        hint = _HINTS.get(response.status)
        return f"{answered}: {hint}" if hint else answered

    def _no_answer(self, method: str, path: str, error: Exception) -> str:
        reason = plain(str(error), 300)
        return f"no answer from ComfyUI at {self.url} to {method} {path}; is it running? ({reason})"


def _limited(response: BaseHTTPResponse, limit_bytes: int, what: str, fault: type[ComfyError]) -> Iterator[bytes]:
    """The body as it comes. Raises: `fault` past the limit, before or while reading."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise fault(f"ComfyUI's answer for {what} is compressed, which was not asked for")
    length = response.headers.get("Content-Length", "")
    too_much = fault(f"ComfyUI's answer for {what} is over the limit of {limit_bytes} bytes")
    if length.isdecimal() and (len(length) > 18 or int(length) > limit_bytes):
        raise too_much
    for chunk in response.stream(CHUNK_BYTES, decode_content=False):
        limit_bytes -= len(chunk)
        if limit_bytes < 0:
            raise too_much
        yield chunk


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    more = parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment
    if parts.scheme != "http" or not parts.hostname or more:
        raise ValueError(f"{url!r} is not the address of a ComfyUI; one looks like http://127.0.0.1:8188")
    return parts.hostname, parts.port if parts.port is not None else 80
