"""HTTP to one ComfyUI, bounded in time and size: which answers count, and as what every other one is told.

Every call ends within its time limit, whatever the server does: a worker whose ComfyUI hangs must still send its
heartbeats. No redirect is followed, nothing is retried, no proxy is used and no cookie kept. Only plain http: a worker
stands beside its container, on loopback or a private network. Owns the connections; comfyui/wire.py is what they are.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from comfyui.errors import ComfyError, ComfyFailed, ComfyUnreachable
from comfyui.wire import BadAnswer, Connection, Head, Timer
from comfyui.words import plain

REPLY_BYTES: Final = 64 << 20  # /queue carries whole workflows, /object_info all node classes
#: Connections kept between calls: the pieces of outputs are fetched in turns, and between other calls.
IDLE_MOST: Final = 8
_HINTS: Final[Mapping[int, str]] = {
    401: "it asks for a login; switch its web authentication off and keep it on a private network",
    403: "a proxy or its own origin check stands in the way",
    404: "is this a ComfyUI?",
    405: "is this a ComfyUI?",
}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    #: How long the body is, as the head says; of an answer to HEAD, how long it would be. None: it does not say.
    size_bytes: int | None = None


class Http:
    """One server's calls. Not for use by several threads."""

    def __init__(self, url: str, *, limit_s: float) -> None:
        """`url` is http://host:port. Raises: ValueError when it is anything else."""
        self.host, self.port = _address(url)
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self.limit_s = limit_s
        self.timer = Timer()
        self._idle: list[Connection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

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
        with self._told(method, path), self._connection(by) as connection:
            head = self._exchange(connection, method, path, query, body=body, headers=headers)
            if head.status != 200 and head.status not in also:
                raise ComfyUnreachable(self._odd_status(method, path, head.status))
            size_bytes = _size_bytes(head)
            # After HEAD no body comes, however long the file is that it is about.
            limit_bytes = REPLY_BYTES if method != "HEAD" or size_bytes is None else size_bytes
            pieces = list(_limited(connection, head, limit_bytes, f"{method} {path}", ComfyUnreachable))
            return Reply(head.status, b"".join(pieces), size_bytes)

    def stream(self, path: str, query: Mapping[str, str], *, limit_bytes: int) -> Iterator[bytes]:
        """The body of a GET in chunks; each may take the whole time limit.

        Raises: ComfyUnreachable as `call`. ComfyFailed when the server refuses (it is gone) or sends too much.
        """
        with self._told("GET", path), self._connection(self.by()) as connection:
            head = self._exchange(connection, "GET", path, query)
            if head.status in (400, 403, 404):
                raise ComfyFailed(f"ComfyUI at {self.url} no longer has {plain(query.get('filename'))!r}")
            if head.status != 200:
                raise ComfyUnreachable(self._odd_status("GET", path, head.status))
            for piece in _limited(connection, head, limit_bytes, plain(query.get("filename")), ComfyFailed):
                yield piece
                self.timer.by = self.by()

    @contextmanager
    def _connection(self, by: float) -> Iterator[Connection]:
        """One for an exchange that ends by then; kept if it was read to its end."""
        self.timer.by = by
        connection = self._idle.pop() if self._idle else None
        if connection is not None and not connection.usable:
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(self.host, self.port, self.timer)
        try:
            yield connection
        finally:
            # Else what is left of the answer would be read as the next one.
            if connection.idle and len(self._idle) < IDLE_MOST:
                self._idle.append(connection)
            else:
                connection.close()

    def _exchange(
        self,
        connection: Connection,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Head:
        """Ask, and return the head of the answer."""
        target = f"{path}?{urlencode(query)}" if query else path
        fields = {"Host": self.url.removeprefix("http://"), "Accept-Encoding": "identity", "User-Agent": "comfyfleet"}
        connection.send(method, target, {**fields, **(headers if headers is not None else {})}, body)
        return connection.head()

    @contextmanager
    def _told(self, method: str, path: str) -> Iterator[None]:
        """Whatever ends the exchange under way is told as ComfyUnreachable."""
        try:
            yield
        except (BadAnswer, OSError) as e:
            raise ComfyUnreachable(self._no_answer(method, path, e)) from e

    def _paced(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            self.timer.by = self.by()
            yield part
        self.timer.by = self.by()

    def _odd_status(self, method: str, path: str, status: int) -> str:
        answered = f"ComfyUI at {self.url} answered {status} to {method} {path}"
        if 300 <= status < 400:
            return f"{answered}; redirects are not followed, give the address it really has"
        hint = _HINTS.get(status)
        return f"{answered}: {hint}" if hint else answered

    def _no_answer(self, method: str, path: str, error: Exception) -> str:
        reason = plain(str(error), 300)
        return f"no answer from ComfyUI at {self.url} to {method} {path}; is it running? ({reason})"


def _limited(
    connection: Connection, head: Head, limit_bytes: int, what: str, fault: type[ComfyError]
) -> Iterator[bytes]:
    """The body as it comes, in pieces. Raises: `fault` past the limit, before or while reading."""
    if head.fields.get("content-encoding", "identity") != "identity":
        raise fault(f"ComfyUI's answer for {what} is compressed, which was not asked for")
    size_bytes = _size_bytes(head)
    too_much = fault(f"ComfyUI's answer for {what} is over the limit of {limit_bytes} bytes")
    if size_bytes is not None and size_bytes > limit_bytes:
        raise too_much
    for piece in connection.pieces(head):
        limit_bytes -= len(piece)
        if limit_bytes < 0:
            raise too_much
        yield piece


def _size_bytes(head: Head) -> int | None:
    length = head.fields.get("content-length", "")
    return int(length[:19]) if length.isascii() and length.isdecimal() else None  # so many digits are over any limit


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    more = parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment
    try:
        host = parts.hostname.encode("idna").decode() if parts.hostname is not None else ""
    except UnicodeError:
        host = ""  # no name that could be looked up
    if parts.scheme != "http" or not host or more:
        raise ValueError(f"{url!r} is not the address of a ComfyUI; one looks like http://127.0.0.1:8188")
    return host, parts.port if parts.port is not None else 80
