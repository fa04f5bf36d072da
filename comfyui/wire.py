"""The sockets to one ComfyUI: every operation under one deadline, and HTTP/1.1 on a connection that is kept.

As much of HTTP as a worker needs, and strict: a head that two readers could take differently, or a body that ends
before its end, is BadAnswer and the connection is of no more use. Knows no path and no status. Owns its sockets.
"""

import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final

#: What a body comes in; only the last piece is smaller.
PIECE_BYTES: Final = 64 << 10
HEAD_BYTES: Final = 64 << 10
#: A line that is not of the head: the size of a chunk, or a field after the last one.
LINE_BYTES: Final = 4 << 10
LINES_AFTER: Final = 100
#: Interim answers (100, 103) before the one that counts.
INTERIM: Final = 8
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")


class BadAnswer(Exception):
    """What came is no whole answer of HTTP."""


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


def connected(host: str, port: int, timer: Timer) -> TimedSocket:
    """To the first address of the host that takes it. They share what is left: none can use up the others' time.

    Raises: OSError.
    """
    fault = OSError(f"{host} has no address")
    found = _addresses(host, port, timer)
    for place, (family, kind, protocol, _, address) in enumerate(found):
        try:
            made = TimedSocket(socket.socket(family, kind, protocol), timer)
        except OSError as e:  # this machine has no such addresses
            fault = e
            continue
        try:
            made.settimeout(timer.left_s() / (len(found) - place))
            made.connect(address)
        except OSError as e:
            made.close()
            fault = e
        else:
            return made
    raise fault


#: Look-ups of names that are not over, by host and port: whoever asks meanwhile waits for the same one.
_asked: Final[dict[tuple[str, int], Future[list[Any]]]] = {}


def _addresses(host: str, port: int, timer: Timer) -> list[Any]:
    """What the system knows the host by, by the timer.

    A name service that is away takes up to a minute to say so, and getaddrinfo knows no limit: a thread waits for it.
    Raises: OSError.
    """
    with suppress(OSError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    limit_s = timer.left_s()
    if (lookup := _asked.get((host, port))) is None:
        lookup = _asked[host, port] = Future()
        Thread(target=_look_up, args=(host, port, lookup), name="look-up", daemon=True).start()
    if not wait([lookup], limit_s).done:
        raise TimeoutError(f"the name service does not tell the address of {host}")
    _asked.pop((host, port), None)
    return lookup.result()


def _look_up(host: str, port: int, told: Future[list[Any]]) -> None:
    try:
        told.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as e:  # to be raised where it is asked for
        told.set_exception(e)


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    #: Names in lower case; a field that comes twice is joined with commas, as it may be read.
    fields: Mapping[str, str]
    #: HTTP/1.1, and nobody said that the connection ends with this answer.
    kept: bool


class Connection:
    """One exchange after the other: `send`, `head`, all of `pieces`. After any exception: `close`."""

    def __init__(self, host: str, port: int, timer: Timer) -> None:
        """Connects by the timer. Raises: OSError."""
        self._socket = connected(host, port, timer)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: Read, and not yet used.
        self._ahead = bytearray()
        self._answers = True
        #: The last answer was read whole and another may follow: the connection can be used again.
        self.idle = False

    def close(self) -> None:
        self._socket.close()

    @property
    def usable(self) -> bool:
        """Whether it can carry another exchange: nothing has come since the last one, not even its end."""
        return self.idle and not self._ahead and not select.select([self._socket], [], [], 0)[0]

    def send(self, method: str, target: str, fields: Mapping[str, str], body: bytes | Iterable[bytes] | None) -> None:
        """Send a request. An iterable body needs its Content-Length in `fields`. Raises: OSError."""
        self.idle, self._answers = False, method != "HEAD"
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        if isinstance(body, bytes):
            head, body = head + body, None
        # Whoever refuses a body may answer and close before all of it is there: the answer says why.
        with suppress(ConnectionResetError, BrokenPipeError):
            self._socket.sendall(head)
            for part in body if body is not None else ():
                self._socket.sendall(part)

    def head(self) -> Head:
        """The head of the answer. Raises: OSError, BadAnswer."""
        for _ in range(INTERIM):
            status, version, fields = self._read_head()
            if status >= 200:
                ends = "close" in fields.get("connection", "").lower()
                return Head(status, fields, version == b"1" and not ends)
        raise BadAnswer("interim answers and never one that counts")

    def pieces(self, head: Head) -> Iterator[bytes]:
        """The body, in pieces of PIECE_BYTES; one that is smaller is the last, and getting it read all.

        Raises: OSError, BadAnswer.
        """
        coding, length = head.fields.get("transfer-encoding"), head.fields.get("content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None):
            raise BadAnswer("a body whose length can be read in two ways")
        if length is not None and re.fullmatch(r"[0-9]{1,18}", length) is None:
            raise BadAnswer(f"a body of {length[:40]} bytes")
        if not self._answers or head.status in (204, 304):
            parts: Iterator[bytes] = iter(())
        elif coding is not None:
            parts = self._chunks()
        elif length is not None:
            parts = self._exactly(int(length))
        else:
            head = Head(head.status, head.fields, kept=False)
            parts = self._to_the_end()
        piece = bytearray()
        for part in parts:
            piece += part
            while len(piece) >= PIECE_BYTES:
                yield bytes(piece[:PIECE_BYTES])
                del piece[:PIECE_BYTES]
        self.idle = head.kept
        if piece:
            yield bytes(piece)

    # ---- bytes in

    def _more(self) -> None:
        data = self._socket.recv(PIECE_BYTES)
        if not data:
            raise BadAnswer("the connection ended in the middle of the answer")
        self._ahead += data

    def _line(self, end: bytes, most_bytes: int) -> bytes:
        """Up to `end`, and without it."""
        while (at := self._ahead.find(end, 0, most_bytes)) < 0:
            if len(self._ahead) >= most_bytes:
                raise BadAnswer(f"a head or line of more than {most_bytes} bytes")
            self._more()
        found = bytes(self._ahead[:at])
        del self._ahead[: at + len(end)]
        return found

    def _read_head(self) -> tuple[int, bytes, Mapping[str, str]]:
        first, *lines = self._line(b"\r\n\r\n", HEAD_BYTES).split(b"\r\n")
        answered = _STATUS.fullmatch(first)
        if answered is None:
            raise BadAnswer(f"it does not begin as an answer does: {bytes(first[:60])!r}")
        fields: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise BadAnswer(f"no field of a head: {bytes(line[:60])!r}")
            name, value = field[1].decode("latin-1").lower(), field[2].decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return int(answered[2]), answered[1], fields

    def _exactly(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes > 0:
            if not self._ahead:
                self._more()
            part = bytes(self._ahead[:size_bytes])
            del self._ahead[:size_bytes]
            size_bytes -= len(part)
            yield part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line(b"\r\n", LINE_BYTES)
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise BadAnswer(f"no size of a chunk: {line[:60]!r}")
            if int(size[1], 16) == 0:
                break
            yield from self._exactly(int(size[1], 16))
            if self._line(b"\r\n", LINE_BYTES):
                raise BadAnswer("a chunk that is longer than it says")
        for _ in range(LINES_AFTER):
            if not self._line(b"\r\n", LINE_BYTES):
                return
        raise BadAnswer("fields without end after the body")

    def _to_the_end(self) -> Iterator[bytes]:
        with suppress(BadAnswer):
            while True:
                if self._ahead:
                    yield bytes(self._ahead)
                    self._ahead.clear()
                self._more()
