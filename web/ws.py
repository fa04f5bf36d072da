"""The WebSockets of browsers: handshake, reading, and sending without ever waiting for one of them.

The only file that imports geventwebsocket, which does the handshake; frames are ours (web/frames.py), because its own
take anything and block. Each socket has one owner, its Browser: sends go straight to the kernel, and only what the
kernel does not take waits in a mailbox, for which a writer greenlet runs until it is empty.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import json
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, cast

import gevent
from gevent.socket import wait_write
from geventwebsocket.handler import WebSocketHandler

from broker.runtime.clock import now
from web.answers import JSON_TYPE, error_body, status_line
from web.frames import Close, Message, Opcode, Reader, Violation, encode, encode_close
from web.hub import TICK, Changes, Hub, Scope
from web.mailbox import Frame, Mailbox, Piece
from web.serve import Handler, Server
from web.viewer import Viewer

log = logging.getLogger(__name__)

PATH: Final = "/api/v1/events"
#: How often silence, slowness and sign-in of every browser are looked at; every fifth time a tick is sent, so that a
#: page hears something at least every 10 s.
CHECK_S: Final = 2.0
CHECKS_PER_TICK: Final = 5
#: Browsers of one owner who is not an admin.
MAX_OF_ONE_OWNER: Final = 50
#: A browser that sent nothing for so long is pinged; silent for twice as long, it is gone.
SILENT_MS: Final = 12_000
#: A socket that takes no byte for so long is given up.
STUCK_MS: Final = 8_000
#: From our close frame to the end of the connection, whether or not the browser answers.
CLOSING_MS: Final = 3_000
#: From one snapshot that a browser asked for to the next. A page asks after a gap alone; of a large fleet each is
#: hundreds of kilobytes, and everybody waits while it is put together.
RESYNC_MS: Final = 1_000
#: What the kernel may hold for one browser; the mailbox holds the rest.
KERNEL_BYTES: Final = 256 << 10


class Browser:
    """One open WebSocket. Its handler's greenlet reads; whoever has news calls `deliver`."""

    def __init__(self, handler: Any, viewer: Viewer, identify: Callable[[], Viewer | None]) -> None:
        self.viewer = viewer
        self.identify = identify
        self._rfile = handler.rfile
        # gevent's socket would wait; the plain one below it says at once what it did not take.
        self._raw: socket.socket = handler.socket._sock
        handler.socket.settimeout(None)
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self._send = self._raw.send
        self._mailbox = Mailbox()
        self._writer: gevent.Greenlet[..., None] | None = None
        self._heard_ms = self._moved_ms = now().monotonic_ms
        self._resynced_ms = self._heard_ms - RESYNC_MS
        self._pinged = False
        self._closed_ms: int | None = None

    # ---- to the browser

    def deliver(self, frames: list[Frame], joined: bytes, serial: int | None) -> None:
        """Send these frames, or keep them while the socket is full. `joined`, `serial`: the same for all receivers."""
        if self._closed_ms is not None:
            return
        if self._writer is not None:
            self._mailbox.add(frames)
            if self._mailbox.full:
                self.close(Close.TOO_SLOW, "this browser does not keep up")
            return
        try:
            taken = self._send(joined)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._abort()
            return
        self._mailbox.sent(serial, memoryview(joined)[taken:])
        if taken < len(joined):
            self._start_writer()

    def send(self, frame: Frame) -> None:
        self.deliver([frame], frame.data, frame.serial)

    def close(self, code: Close, text: str) -> None:
        """Say why, then end. What waits is dropped; a frame begun is finished first."""
        if self._closed_ms is not None:
            return
        self._closed_ms = now().monotonic_ms
        self._mailbox.end(encode_close(code, text))
        self._start_writer()

    def _take(self, data: Piece) -> int:
        """How much of `data` the kernel took, maybe nothing. Raises OSError when the connection is gone."""
        try:
            taken = self._raw.send(data)
        except BlockingIOError:
            return 0
        if taken:
            self._moved_ms = now().monotonic_ms
        return taken

    def _start_writer(self) -> None:
        if self._writer is None:
            self._moved_ms = now().monotonic_ms
            self._writer = gevent.spawn(self._write)

    def _write(self) -> None:
        try:
            while not self._mailbox.empty:
                data = self._mailbox.take(64 << 10)
                taken = self._take(data)
                if taken < len(data):
                    self._mailbox.put_back(memoryview(data)[taken:])
                    wait_write(self._raw.fileno())
        except OSError:
            self._abort()
        finally:
            self._writer = None

    def _abort(self) -> None:
        """End the connection without a word; the reader notices."""
        if self._closed_ms is None:
            self._closed_ms = now().monotonic_ms
        try:
            self._raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a browser was gone before")

    # ---- from the browser

    def read(self, resync: Callable[[], Frame]) -> None:
        """Read until the connection ends. Only the handler's greenlet calls it."""
        reader = Reader()
        try:
            while data := self._rfile.read1(64 << 10):
                self._heard_ms, self._pinged = now().monotonic_ms, False
                for message in reader.feed(data, self._heard_ms):
                    if self._closed_ms is None and not self._heed(message, resync):
                        return
                    if message.opcode is Opcode.CLOSE:
                        return
        except Violation as e:
            self.dismiss(e.code, e.text)
        except (OSError, ValueError):
            log.debug("a browser left without a word")

    def finish(self) -> None:
        """The connection is over: nothing of it may go on."""
        self._closed_ms = self._closed_ms if self._closed_ms is not None else now().monotonic_ms
        if self._writer is not None:
            self._writer.join(0.1)
            if self._writer is not None:
                self._writer.kill()

    def _heed(self, message: Message, resync: Callable[[], Frame]) -> bool:
        """React to a message. False when the conversation is over."""
        match message.opcode:
            case Opcode.PING:
                self.send(Frame(None, "pong", encode(Opcode.PONG, message.data)))
            case Opcode.CLOSE:
                self.close(Close.NORMAL, "")
                return False
            case Opcode.TEXT:
                if not _asks_resync(message.data):
                    raise Violation(Close.POLICY, 'the only message to send is {"type":"resync"}')
                if self._heard_ms - self._resynced_ms < RESYNC_MS:
                    raise Violation(Close.POLICY, f"more than one snapshot in {RESYNC_MS} ms")
                self._resynced_ms = self._heard_ms
                self.send(resync())
        return True

    def dismiss(self, code: Close, text: str) -> None:
        """Close, and throw away what still arrives for a moment: unread bytes would destroy our close frame."""
        self.close(code, text)
        if self._writer is not None:
            self._writer.join(CLOSING_MS / 1000)
        with contextlib.suppress(OSError), gevent.Timeout(CLOSING_MS / 1000, cast("Any", False)):
            self._raw.shutdown(socket.SHUT_WR)
            while self._rfile.read1(64 << 10):
                continue

    # ---- watched over

    def check(self, now_ms: int) -> None:
        """Ping the silent, give up the dead, close who is signed out."""
        if self._closed_ms is not None:
            if now_ms - self._closed_ms > CLOSING_MS:
                self._abort()
        elif not self._mailbox.empty and now_ms - self._moved_ms > STUCK_MS:
            self.close(Close.TOO_SLOW, "this browser does not read")
        elif now_ms - self._heard_ms > 2 * SILENT_MS:
            self._abort()
        elif self.identify() != self.viewer:
            self.close(Close.NOT_SIGNED_IN, "signed out")
        elif now_ms - self._heard_ms > SILENT_MS and not self._pinged:
            self._pinged = True
            self.send(Frame(None, "ping", encode(Opcode.PING, b"")))


def _asks_resync(data: bytes) -> bool:
    try:
        return bool(json.loads(data) == {"type": "resync"})
    except (ValueError, RecursionError):
        return False


class Sockets:
    """All open WebSockets of this process."""

    def __init__(
        self,
        hub: Hub,
        *,
        identify: Callable[[dict[str, Any]], Viewer | None],
        is_same_origin: Callable[[dict[str, Any]], bool],
        max_sockets: int,
    ) -> None:
        self._hub = hub
        self._identify = identify
        self._is_same_origin = is_same_origin
        self._max_sockets = max_sockets
        self._browsers: dict[Scope, set[Browser]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._browsers.values()))

    def deliver(self, changes: Changes) -> None:
        """Carry frames to their browsers. Never waits, so that one browser cannot hold up another."""
        for scope, frames in changes.frames.items():
            joined = frames[0].data if len(frames) == 1 else b"".join([frame.data for frame in frames])
            serial = next((frame.serial for frame in reversed(frames) if frame.serial is not None), None)
            for browser in tuple(self._browsers.get(scope, ())):
                browser.deliver(frames, joined, serial)

    def watch(self) -> None:
        """Tick and look after every browser, for ever."""
        for count in itertools.count(1):
            gevent.sleep(CHECK_S)
            if count % CHECKS_PER_TICK == 0:
                self.deliver(Changes({scope: [TICK] for scope in self._browsers}))
            now_ms = now().monotonic_ms
            for browser in [browser for group in self._browsers.values() for browser in group]:
                browser.check(now_ms)

    def close_all(self) -> None:
        for browser in [browser for group in self._browsers.values() for browser in group]:
            browser.close(Close.GOING_AWAY, "the server is going")

    # ---- what the handler asks

    def refusal(self, environ: dict[str, Any]) -> tuple[int, str] | None:
        """Why this handshake is refused, as (status, text); None when it may go on."""
        if environ["PATH_INFO"] != PATH:
            return 404, "there is no WebSocket at this path"
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
            return 426, "want Sec-WebSocket-Version: 13"
        if "upgrade" not in environ.get("HTTP_CONNECTION", "").lower() or not _is_key(
            environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
        ):
            return 400, "this is not a WebSocket handshake"
        if not self._is_same_origin(environ):
            return 403, "this Origin may not watch"
        viewer = self._identify(environ)
        theirs = len(self._browsers.get(viewer.scope, ())) if viewer is not None and not viewer.admin else 0
        if len(self) >= self._max_sockets or theirs >= MAX_OF_ONE_OWNER:
            return 503, "too many browsers watch through this process"
        return None

    def serve(self, handler: Any) -> None:
        """Everything between handshake and end of one connection."""
        environ = handler.environ
        viewer = self._identify(environ)
        if viewer is None:
            browser = Browser(handler, Viewer("", False), lambda: None)
            browser.dismiss(Close.NOT_SIGNED_IN, "sign in first")
            browser.finish()
            return
        browser = Browser(handler, viewer, lambda: self._identify(environ))
        scope = viewer.scope
        snapshot = self._hub.join(scope)
        self._browsers.setdefault(scope, set()).add(browser)
        try:
            browser.send(snapshot)
            browser.read(lambda: self._hub.resync(scope))
        finally:
            self._browsers[scope].discard(browser)
            if not self._browsers[scope]:
                del self._browsers[scope]
            self._hub.leave(scope)
            browser.finish()


class SocketServer(Server):
    """A server whose connections may become WebSockets."""

    def __init__(self, sockets: Sockets, *args: Any, **named: Any) -> None:
        super().__init__(*args, handler_class=SocketHandler, **named)
        self.sockets = sockets


class SocketHandler(Handler, WebSocketHandler):  # type: ignore[misc]  # geventwebsocket has no types
    server: SocketServer
    environ: dict[str, Any]

    def run_application(self) -> None:
        if "HTTP_UPGRADE" in self.environ:
            super().run_application()
        else:
            Handler.run_application(self)

    def upgrade_websocket(self) -> Any:
        if self.environ.get("HTTP_UPGRADE", "").lower() != "websocket":
            return None
        refusal = self.server.sockets.refusal(self.environ)
        if refusal is None:
            return super().upgrade_websocket()
        status, text = refusal
        code, extra = _REFUSALS[status]
        self.start_response(status_line(status), [("Content-Type", JSON_TYPE), ("Connection", "close"), *extra])
        return [error_body(code, text)]

    def run_websocket(self) -> None:
        # The library's object carried the handshake and may do no more: it would send frames of its own when dropped.
        self.websocket.closed = True
        self.server.sockets.serve(self)


#: Status of a refused handshake -> code word, headers.
_REFUSALS: Final[dict[int, tuple[str, list[tuple[str, str]]]]] = {
    400: ("bad_request", []),
    403: ("forbidden_origin", []),
    404: ("not_found", []),
    426: ("upgrade_required", [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]),
    503: ("busy", [("Retry-After", "5")]),
}


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
