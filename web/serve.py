"""gevent's pywsgi with what it leaves out: timeouts, caps, strict request heads, TCP_NODELAY, one error shape.

Knows no route. A request that reaches the application has exactly one meaning: one Host that is ours, one length or
chunks, no header twice that counts once. The server owns each accepted socket until its handler returns.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import re
import socket
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import gevent
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from web.answers import error_body, status_line

log = logging.getLogger(__name__)

#: From the first byte of a request to the end of its head.
HEAD_S: Final = 10.0
#: Without a byte in either direction; also the longest one write may take.
IDLE_S: Final = 60.0
#: An unread rest of a body is read and thrown away for so long and so far, so that the answer reaches the client.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 32 << 20
MAX_HEAD_BYTES: Final = 32 << 10
MAX_HEADERS: Final = 100
MAX_REQUESTS_PER_CONNECTION: Final = 100
#: A body of at most this size leaves with its head.
JOINED_BYTES: Final = 64 << 10
#: Connections from one address; a proxy on this machine is not counted.
MAX_CONNECTIONS_PER_ADDRESS: Final = 200

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_CONTROL_ESCAPE = re.compile(r"%[01][0-9a-fA-F]|%7[fF]")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
#: A second one could mean something else to the proxy in front of us.
_ONCE: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "origin",
        "transfer-encoding",
        "sec-fetch-site",
        "sec-websocket-key",
        "sec-websocket-version",
        "upgrade",
    }
)
#: The code word of each error that is found before a route is.
_CODES: Final = {
    400: "bad_request",
    405: "method_not_allowed",
    414: "uri_too_long",
    421: "unknown_host",
    431: "head_too_large",
    500: "internal",
    503: "busy",
}
_HEADERS: Final = {405: "Allow: GET, HEAD, POST, DELETE\r\n", 503: "Retry-After: 5\r\n"}


def _within(seconds: float) -> gevent.Timeout:
    """A block that ends in silence when its time is over."""
    return gevent.Timeout(seconds, cast("Any", False))


class Refused(ValueError):
    """The head of a request is not acceptable; the connection is closed after the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def answer(status: int, text: str) -> bytes:
    """A whole response in the one error shape, for what never reaches the application."""
    body = error_body(_CODES[status], text)
    head = (
        f"HTTP/1.1 {status_line(status)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n"
        f"{_HEADERS.get(status, '')}\r\n"
    )
    return head.encode() + body


def check_line(line: str) -> None:
    """Raises Refused unless this is a request line this server answers."""
    words = line.removesuffix("\n").removesuffix("\r").split(" ")
    if not line.endswith("\r\n") or len(words) != 3 or not re.fullmatch(r"HTTP/1\.[01]", words[2]):
        raise Refused(400, "want a request line METHOD /PATH HTTP/1.1")
    if not re.fullmatch(r"[A-Z]{1,20}", words[0]):
        raise Refused(400, "a method is written in capital letters")
    if words[0] not in _METHODS:
        raise Refused(405, f"{words[0]} is not used here")
    path = words[1].partition("?")[0]
    if not _TARGET.fullmatch(words[1]) or _CONTROL_ESCAPE.search(path):
        raise Refused(400, "want a path that begins with / and has no control characters")
    try:
        unquote_to_bytes(path).decode()  # Bottle would drop what is not UTF-8, and then find another route
    except UnicodeDecodeError as e:
        raise Refused(400, "want a path in UTF-8") from e


def read_headers(readline: Callable[[int], bytes]) -> list[tuple[str, str]]:
    """The header fields up to the empty line, names as sent. Raises Refused for anything ambiguous."""
    headers: list[tuple[str, str]] = []
    size = 0
    while (line := readline(MAX_HEAD_BYTES + 1)) != b"\r\n":
        size += len(line)
        if size > MAX_HEAD_BYTES or len(headers) == MAX_HEADERS:
            raise Refused(431, f"at most {MAX_HEADERS} header fields and {MAX_HEAD_BYTES} bytes")
        if not line.endswith(b"\r\n"):
            raise Refused(400, "a header line ends with CR LF")
        name, colon, value = line[:-2].decode("latin-1").partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Refused(400, "a header line is `Name: value` without control characters or folding")
        headers.append((name, value.strip(" \t")))
    return headers


def check_headers(
    method: str, version: str, headers: list[tuple[str, str]], allowed: Callable[[str], bool]
) -> dict[str, str]:
    """The fields by their names in lower case; of those that came more than once, the last.

    Raises Refused when two readers could disagree about this request, or when it is meant for another host.
    """
    fields: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key in fields and key in _ONCE:
            raise Refused(400, f"{key} appears twice")
        fields[key] = value
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if length is not None and not re.fullmatch(r"[0-9]{1,15}", length):
        raise Refused(400, "Content-Length is a number")
    if coding is not None and (length is not None or coding.lower() != "chunked" or version != "HTTP/1.1"):
        raise Refused(400, "a body has either a Content-Length or Transfer-Encoding: chunked")
    has_body = coding is not None or (length is not None and int(length) > 0)
    if has_body and (method in ("GET", "HEAD") or "upgrade" in fields):
        raise Refused(400, "this request may not have a body")
    host = _HOST.fullmatch(fields.get("host", ""))
    if host is None:
        raise Refused(400, "want a Host header")
    if not allowed(host["name"].lower().strip("[]")):
        raise Refused(421, "this server is not that host; see allowed_hosts in the configuration")
    return fields


def variables(headers: list[tuple[str, str]]) -> dict[str, str]:
    """The header fields as WSGI names them. One with _ in its name is left out: it would stand for another with -."""
    found: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        key = name.replace("-", "_").upper()
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        found[key] = f"{found[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}" if key in found else value
    return found


class Body(Input):
    """The body of one request, read by the application or else thrown away within bounds."""

    def __init__(self, handler: Handler, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._handler = handler
        self._broken = False

    def read(self, length: int | None = None) -> bytes:
        """As a file's. Raises OSError for a body that ends early or whose chunks are malformed."""
        try:
            return bytes(super().read(length))
        except ValueError as e:
            self._broken = True
            raise OSError("malformed chunk") from e
        except BaseException:
            self._broken = True  # also a time-out: what comes next on this connection is not a request
            raise

    def _discard(self) -> None:
        self.send_100_continue_enabled = False
        left = LINGER_BYTES
        with contextlib.suppress(OSError), _within(LINGER_S):
            while not self._broken and left > 0 and (data := self.read(64 << 10)):
                left -= len(data)
            if not self._broken and left > 0:
                return
        self._handler.close_connection = True


class Handler(WSGIHandler):
    """One connection."""

    server: Server
    # As pywsgi has them; its stubs know them otherwise or not at all.
    path: str
    status: Any
    response_headers: Any
    content_length: Any
    _sendall: Callable[[bytes], None]
    _write: Callable[[bytes], None]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_timer = gevent.Timeout(HEAD_S)
        self._requests = 0

    def handle(self) -> None:
        try:
            super().handle()
        except gevent.Timeout as e:
            if e is not self._head_timer:
                raise
        finally:
            self._head_timer.close()

    def handle_one_request(self) -> Any:
        result = super().handle_one_request()
        if isinstance(result, tuple):
            status, raw = int(str(result[0])), result[1]
            if b"{" not in raw:  # pywsgi's own 414
                raw = answer(status, "the request line is too long")
            self.socket.sendall(raw)
            return self._end()
        if self._requests >= MAX_REQUESTS_PER_CONNECTION:
            return self._end()
        return result

    def _end(self) -> None:
        """Close so that the last answer arrives: closing over bytes that nobody read would destroy it on its way."""
        left = LINGER_BYTES
        with contextlib.suppress(OSError), _within(LINGER_S):
            self.socket.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self.rfile.read1(64 << 10)):
                left -= len(data)

    def read_requestline(self) -> str:
        gevent.sleep(0)  # whoever asks again at once takes turns with all others
        begun = self.rfile.peek(1)  # waits for the first byte, at most IDLE_S
        if not begun:
            return ""
        if b"\r\n\r\n" not in begun:
            self._head_timer = gevent.Timeout(HEAD_S)
            self._head_timer.start()
        self._requests += 1
        return str(super().read_requestline())

    def read_request(self, raw_requestline: str) -> Any:
        """pywsgi's name for: take in the head. Its own way through the mail library costs more than the rest of it."""
        try:
            check_line(raw_requestline)
            self.requestline = raw_requestline.rstrip()
            self.command, self.path, self.request_version = self.requestline.split(" ")
            self._headers_read = read_headers(self.rfile.readline)
            fields = check_headers(self.command, self.request_version, self._headers_read, self.server.is_our_host)
        finally:
            self._head_timer.close()
        length, connection = fields.get("content-length"), fields.get("connection", "").lower()
        self.content_length = int(length) if length is not None else None
        self.close_connection = connection == "close" or (
            self.request_version == "HTTP/1.0" and connection != "keep-alive"
        )
        return True

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = self.server.get_environ()
        path, _, environ["QUERY_STRING"] = self.path.partition("?")
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")  # as WSGI wants it
        environ["SCRIPT_NAME"] = ""
        environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"] = self.command, self.request_version
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ.update(variables(self._headers_read))
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
        sock = self.socket if environ.get("HTTP_EXPECT", "").lower() == "100-continue" else None
        self.wsgi_input = environ["wsgi.input"] = Body(self, self.rfile, self.content_length, sock, chunked)
        environ["wsgi.input_terminated"] = True
        environ["web.handler"] = self
        return environ

    def _write_with_headers(self, data: bytes) -> None:
        """Head and body leave together where that is cheap: one call of the kernel, one segment."""
        self.headers_sent = True
        self.finalize_headers()
        lines = [b"%s: %s\r\n" % header for header in self.response_headers]
        head = b"HTTP/1.1 %s\r\n%s\r\n" % (self.status, b"".join(lines))
        if self.response_use_chunked or len(data) > JOINED_BYTES:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data if data else head)  # geventwebsocket says "" where it means b""

    def handle_one_response(self) -> None:
        self.server.serving += 1
        try:
            super().handle_one_response()
        finally:
            self.server.serving -= 1

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if self._requests >= MAX_REQUESTS_PER_CONNECTION and not status.startswith("101"):
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        refused = ex if isinstance(ex, Refused) else Refused(400, "this is not a request")
        log.debug("refused a request", extra={"fields": {"peer": self.client_address[0], "why": refused.text}})
        return str(refused.status), answer(refused.status, refused.text)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        self.close_connection = True
        if not self.response_length:
            text = "this server failed; the log says why" if error_code == 500 else "this is not a request"
            try:
                self.socket.sendall(answer(error_code, text))
            except OSError:
                log.debug("a client left before its answer")

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if isinstance(v, OSError):
            log.debug("a client left in the middle of its answer")
        elif not issubclass(t, gevent.GreenletExit):
            log.error("a request failed", exc_info=(t, v, tb))

    def log_request(self) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("request", extra={"fields": {"line": self.format_request()}})

    def log_error(self, msg: str, *args: Any) -> None:
        log.debug(msg, *args)


class Server(WSGIServer):
    """Accepts, counts and refuses connections."""

    def __init__(
        self,
        listener: Any,
        application: Any,
        *,
        handler_class: type[Handler],
        is_our_host: Callable[[str], bool],
        max_connections: int,
    ) -> None:
        super().__init__(
            listener,
            application,
            handler_class=handler_class,
            log=None,
            error_log=None,
            environ={"SERVER_NAME": "comfyfleet"},  # else pywsgi asks the DNS for it
        )
        self.is_our_host = is_our_host
        self._max_connections = max_connections
        #: Requests being answered, WebSockets among them.
        self.serving = 0
        #: Open connections of each address.
        self._open: collections.Counter[str] = collections.Counter()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def handle(self, sock: Any, address: Any) -> None:
        # Without it each answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IDLE_S)
        peer = address[0]
        if self._over(peer):
            sock.sendall(answer(503, "too many connections"))
            sock.close()
            return
        self._open[peer] += 1
        try:
            super().handle(sock, address)
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    def _over(self, peer: str) -> bool:
        # A socket that hears both kinds of addresses calls the older ones so.
        near = peer.removeprefix("::ffff:").startswith("127.") or peer == "::1"
        return self._open.total() >= self._max_connections or (
            not near and self._open[peer] >= MAX_CONNECTIONS_PER_ADDRESS
        )
