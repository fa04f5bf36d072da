"""ComfyUI's event socket, never waiting. The only file that knows websocket-client; it owns that socket.

It hands over whole frames and knows nothing of what they say. Frames are capped before they are read, fragments are
joined under the same cap, and a frame in flight is taken up again at the next call instead of being waited for.
"""

import json
import socket
from http.cookies import CookieError
from typing import Final
from urllib.parse import quote

from websocket import ABNF, WebSocket, WebSocketException, frame_buffer

from comfyui.errors import ComfyUnreachable
from comfyui.wire import Timer, connected
from comfyui.words import plain

FRAME_BYTES: Final = 64 << 20  # SaveImageWebsocket sends whole pictures as PNG
#: Read at once: a prompt's messages are many and small.
AHEAD_BYTES: Final = 64 << 10
# Then the caller's loop gets its turn; what is left keeps the socket readable, or `waiting`.
FRAMES_AT_ONCE: Final = 64
BYTES_AT_ONCE: Final = 8 << 20
FRAGMENTS: Final = 10_000
GREETING: Final = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
# A peer that vanished without a word is noticed after 10 + 3 x 5 s: the server itself never pings.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class _Frames(frame_buffer):
    """Refuses a length before any of it is read; the refusal repeats, for the stream is lost at that point."""

    def recv_strict(self, bufsize: int) -> bytes:
        if bufsize > FRAME_BYTES:
            raise WebSocketException(f"a frame of {bufsize} bytes; the limit is {FRAME_BYTES}")
        return super().recv_strict(bufsize)


class EventSocket:
    """One open socket. It is not opened twice: make a new one."""

    def __init__(self, host: str, port: int, client_id: str, timer: Timer) -> None:
        """Connects and sends our feature flags, by the timer. Raises: ComfyUnreachable."""
        self._ws = WebSocket()
        self._fault: str | None = None
        self._ahead = memoryview(b"")  # read, and not yet part of a frame
        self._parts: list[bytes] = []  # fragments of a message under way,
        self._room_bytes = 0  # how much may still be added to them,
        self._opcode = 0  # and whether they are text or binary
        address = f"{f'[{host}]' if ':' in host else host}:{port}"
        self._where = f"the event socket of ComfyUI at {address}"
        try:
            self._socket = connected(host, port, timer)
            for option in _KEEPALIVE:
                self._socket.setsockopt(*option)
            self._ws.connect(  # type: ignore[no-untyped-call]  # websocket-client types only part of itself
                f"ws://{address}/ws?clientId={quote(client_id, safe='')}",
                socket=self._socket,
                suppress_origin=True,  # on loopback ComfyUI answers 403 to an Origin other than its Host
                redirect_limit=0,
            )
            self._ws.send(GREETING)
        except (WebSocketException, CookieError, OSError) as e:
            self._ws.shutdown()  # type: ignore[no-untyped-call]
            raise ComfyUnreachable(f"cannot open {self._where}: {plain(str(e), 300)}") from e
        self._frames = _Frames(self._read, skip_utf8_validation=True)
        self._socket.timer = None
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether `receive` has left something that is here already."""
        return self._fault is None and len(self._ahead) > 0

    def receive(self) -> list[str | bytes]:
        """The messages that have arrived, text as str; at most FRAMES_AT_ONCE.

        Raises: ComfyUnreachable once the socket has ended and all messages before that were handed over.
        """
        frames: list[str | bytes] = []
        room_bytes = BYTES_AT_ONCE
        try:
            for _ in range(FRAMES_AT_ONCE if self._fault is None else 0):
                frame = self._next()
                if frame is not None:
                    frames.append(frame)
                    room_bytes -= len(frame)
                if room_bytes < 0:
                    break
        except BlockingIOError:
            pass  # no more for now; a frame cut in two is taken up again at the next call
        except (WebSocketException, OSError) as e:
            self._fault = plain(str(e), 300)
        if self._fault is not None and not frames:
            raise ComfyUnreachable(f"{self._where} ended: {self._fault}")
        return frames

    def close(self, timer: Timer) -> None:
        """Says goodbye and waits, by the timer, until the server has let go of this client id.

        A second socket with the same id, opened before that, would be struck from ComfyUI's table when the first one's
        handler ends: it stays open and hears nothing more.
        """
        self._socket.timer = timer
        try:
            if self._fault is None:
                self._ws.send_close()
            while self._socket.recv(1 << 16):  # until the server's own end of the connection
                pass
        except (WebSocketException, OSError):
            pass  # gone already, or too slow: the caller's silence check finds a deaf successor
        finally:
            self._fault = "closed here"
            self._ws.shutdown()  # type: ignore[no-untyped-call]

    def _next(self) -> str | bytes | None:
        """One whole message; None for a control frame or a fragment. Raises: BlockingIOError for "not yet"."""
        frame = self._frames.recv_frame()
        data = frame.data if isinstance(frame.data, bytes) else frame.data.encode()
        if frame.opcode == ABNF.OPCODE_CLOSE:
            raise WebSocketException(f"ComfyUI closed it ({int.from_bytes(data[:2], 'big') or 'no code'})")
        if frame.opcode == ABNF.OPCODE_PING:
            self._ws.pong(data)
        if frame.opcode in (ABNF.OPCODE_PING, ABNF.OPCODE_PONG):
            return None
        if (frame.opcode == ABNF.OPCODE_CONT) != bool(self._parts):
            raise WebSocketException("fragments out of order")
        if not self._parts:
            self._opcode, self._room_bytes = frame.opcode, FRAME_BYTES
        self._parts.append(data)
        self._room_bytes -= len(data)
        if self._room_bytes < 0 or len(self._parts) > FRAGMENTS:
            raise WebSocketException(f"a message of more than {FRAME_BYTES} bytes or {FRAGMENTS} fragments")
        if not frame.fin:
            return None
        message = b"".join(self._parts)
        self._parts.clear()
        return message.decode(errors="replace") if self._opcode == ABNF.OPCODE_TEXT else message

    def _read(self, size_bytes: int) -> bytes:
        if not self._ahead:
            self._ahead = memoryview(self._socket.recv(AHEAD_BYTES))
            if not self._ahead:
                raise WebSocketException("the connection was lost")
        part, self._ahead = self._ahead[:size_bytes], self._ahead[size_bytes:]
        return bytes(part)
