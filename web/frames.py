"""WebSocket frames (RFC 6455) as the server sees them: checks what arrives at its header, writes what leaves.

Pure: bytes in, messages or a Violation out; web/ws.py owns the socket. A frame that breaks a rule or a limit is refused
before its payload is waited for, so no peer can make this process hold more than two of the largest messages.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import Final

#: The largest frame and the largest message (of all its fragments) a browser may send. The page sends a few bytes.
MAX_MESSAGE_BYTES: Final = 64 << 10
#: Frames of any kind: this many a second, and a burst of twice as many.
MAX_FRAMES_PER_S: Final = 20


class Opcode(enum.IntEnum):
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Close(enum.IntEnum):
    """The close codes this server sends. Source: RFC 6455 section 7.4; 4000 and above are ours."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL = 1002
    UNSUPPORTED = 1003
    NOT_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    NOT_SIGNED_IN = 4401
    TOO_SLOW = 4408


class Violation(Exception):
    """The peer broke a rule or a limit: close with `code`, read nothing more."""

    def __init__(self, code: Close, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A whole text message, or a control frame. `data` of a CLOSE is its payload as sent."""

    opcode: Opcode
    data: bytes


def encode(opcode: Opcode, payload: bytes) -> bytes:
    """One unfragmented, unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def encode_close(code: Close, text: str) -> bytes:
    return encode(Opcode.CLOSE, struct.pack("!H", code) + text.encode()[:120])


class Reader:
    """Cuts a byte stream into messages. After a Violation it must not be used again."""

    def __init__(self) -> None:
        #: Bytes of a frame that is not whole yet.
        self._buffer = bytearray()
        #: Payload of an unfinished message, and its opcode; None between messages.
        self._message = bytearray()
        self._opcode: Opcode | None = None
        #: Frames the peer may still send, and when that was counted.
        self._allowance = 2.0 * MAX_FRAMES_PER_S
        self._counted_ms: int | None = None

    def feed(self, data: bytes, now_ms: int) -> list[Message]:
        """The messages and control frames completed by `data`. Raises Violation."""
        if self._counted_ms is not None:
            earned = (now_ms - self._counted_ms) * MAX_FRAMES_PER_S / 1000
            self._allowance = min(2.0 * MAX_FRAMES_PER_S, self._allowance + earned)
        self._counted_ms = now_ms
        self._buffer += data
        found = []
        while (frame := self._frame()) is not None:
            message = self._joined(*frame)
            if message is not None:
                found.append(message)
        return found

    def _frame(self) -> tuple[bool, Opcode, bytes] | None:
        """(final, opcode, payload) of the next frame, or None until it is whole."""
        if len(self._buffer) < 2:
            return None
        final, opcode, size = self._header()
        ahead = 2
        if size >= 126:
            ahead += 2 if size == 126 else 8
            if len(self._buffer) < ahead:
                return None
            least = 126 if size == 126 else 1 << 16
            size = int.from_bytes(self._buffer[2:ahead], "big")
            if size < least:
                raise Violation(Close.PROTOCOL, "a length written longer than need be")
        held = len(self._message) if opcode is Opcode.CONTINUATION else 0
        if size + held > MAX_MESSAGE_BYTES:
            raise Violation(Close.TOO_BIG, f"a message may have {MAX_MESSAGE_BYTES} bytes")
        if len(self._buffer) < ahead + 4 + size:
            return None
        self._allowance -= 1
        if self._allowance < 0:
            raise Violation(Close.POLICY, f"more than {MAX_FRAMES_PER_S} frames a second")
        mask, payload = self._buffer[ahead : ahead + 4], self._buffer[ahead + 4 : ahead + 4 + size]
        del self._buffer[: ahead + 4 + size]
        return final, opcode, _unmask(payload, mask)

    def _header(self) -> tuple[bool, Opcode, int]:
        """(final, opcode, the seven bits of length), every rule of the first two bytes checked."""
        first, second = self._buffer[0], self._buffer[1]
        if first & 0x70:
            raise Violation(Close.PROTOCOL, "a reserved bit is set")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError as e:
            raise Violation(Close.PROTOCOL, f"opcode {first & 0x0F} is reserved") from e
        final, size = bool(first & 0x80), second & 0x7F
        if not second & 0x80:
            raise Violation(Close.PROTOCOL, "a client must mask its frames")
        if opcode >= Opcode.CLOSE and (not final or size > 125):
            raise Violation(Close.PROTOCOL, "a control frame is whole and has at most 125 bytes")
        if opcode < Opcode.CLOSE and (opcode is Opcode.CONTINUATION) != (self._opcode is not None):
            raise Violation(Close.PROTOCOL, "a fragment out of its order")
        return final, opcode, size

    def _joined(self, final: bool, opcode: Opcode, payload: bytes) -> Message | None:
        if opcode is Opcode.CLOSE:
            _check_close(payload)
        if opcode >= Opcode.CLOSE:
            return Message(opcode, payload)
        if opcode is not Opcode.CONTINUATION:
            self._opcode = opcode
        self._message += payload
        if not final:
            return None
        whole, kind = bytes(self._message), self._opcode
        self._message.clear()
        self._opcode = None
        if kind is Opcode.BINARY:
            raise Violation(Close.UNSUPPORTED, "this server takes text messages only")
        try:
            whole.decode()
        except UnicodeDecodeError as e:
            raise Violation(Close.NOT_UTF8, "a text message is UTF-8") from e
        return Message(Opcode.TEXT, whole)


def _unmask(payload: bytearray, mask: bytearray) -> bytes:
    # One big XOR: a loop over bytes blocks every other client for a millisecond per few KiB.
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


def _check_close(payload: bytes) -> None:
    """Raises Violation unless this is the payload of a close frame. Source: RFC 6455 sections 5.5.1 and 7.4."""
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    known = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) == 1 or not (known or 3000 <= code <= 4999):
        raise Violation(Close.PROTOCOL, "a close frame without a valid code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError as e:
        raise Violation(Close.PROTOCOL, "the reason of a close frame is UTF-8") from e
