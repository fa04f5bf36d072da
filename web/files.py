"""Stored files over the broker's file channel: is it there, the whole of it, a part of it, put a new one.

Each transfer has a DEALER to itself, taken from a few kept open. Knows nothing of owners: web/api/files.py asks first.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any, Final

import gevent
import zmq.green as zmq

from broker.protocol import codec
from broker.protocol.errors import RemoteProtocolError
from broker.protocol.files import Chunk, FileRefused, GetFile, Have, StatFile
from broker.runtime import sockets
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from broker.runtime.transfer import TransferFailed, put_bytes
from web.link import BrokerSilent
from web.shelf import MAX_FILE_BYTES, Shelf

log = logging.getLogger(__name__)

#: Sockets kept open between transfers.
MAX_IDLE: Final = 8
#: An upload without progress for so long has failed.
GIVE_UP_MS: Final = 15_000
#: Lost files that the log has told of.
MAX_LOST: Final = 10_000


class NoSuchFile(Exception):
    """Nothing whole is stored under this digest."""


class NoRoom(Exception):
    """The broker's disk is too full for the file."""


class Files:
    def __init__(
        self,
        context: zmq.Context[Any],
        network: Network,
        identity: Identity | None,
        *,
        reply_ms: int,
        credit_bytes: int,
    ) -> None:
        """credit_bytes: how much is asked for at a time; no more than the broker gives, so both read [files]."""
        self._context = context
        self._network = network
        self._identity = identity
        self._reply_s = reply_ms / 1000
        self._credit_bytes = credit_bytes
        self._idle: list[Any] = []
        #: Outputs that are not stored, and of which the log tells.
        self._lost: dict[str, None] = {}
        self._shelf = Shelf(
            lambda sha256: ((chunk.size_bytes, chunk.data) for chunk in self._chunks(sha256, 0, None)),
            (NoSuchFile, BrokerSilent),
        )

    def stat(self, sha256: str) -> int:
        """The size in bytes. Raises NoSuchFile, BrokerSilent."""
        with self._socket() as socket:
            found: Have = self._ask(socket, StatFile(request_id=_fresh(), sha256=sha256), Have)
            return found.size_bytes

    def peek(self, sha256: str, most_bytes: int) -> tuple[int, bytes]:
        """The size, and the first bytes. Raises NoSuchFile, BrokerSilent."""
        if (kept := self._shelf.whole(sha256)) is not None:
            return len(kept), kept[:most_bytes]
        with self._socket() as socket:
            asked = GetFile(request_id=_fresh(), sha256=sha256, offset=0, until=most_bytes)
            found: Chunk = self._ask(socket, asked, Chunk)
            return found.size_bytes, found.data

    def read(self, sha256: str, most_bytes: int) -> bytes:
        """All of a small file, checked against its digest. Raises NoSuchFile, BrokerSilent."""
        size = self.stat(sha256)
        data = b"".join(self.stream(sha256, 0, size)) if size <= most_bytes else b""
        if hashlib.sha256(data).hexdigest() != sha256:
            log.error("a stored file is too large or damaged", extra={"fields": {"sha256": sha256, "size": size}})
            raise NoSuchFile(sha256)
        return data

    def open(self, sha256: str) -> tuple[int, bytes, Iterator[bytes]]:
        """The size, the first bytes and all the others, for one question. Raises as `stream` does."""
        size_bytes, parts = self._shelf.open(sha256)
        return size_bytes, next(parts), parts

    def lost(self, sha256: str) -> None:
        """A job's output is not stored: the log says so once, however often somebody asks for it."""
        if sha256 not in self._lost:
            log.error("a job's output is not stored", extra={"fields": {"sha256": sha256}})
            self._lost[sha256] = None
            if len(self._lost) > MAX_LOST:
                del self._lost[next(iter(self._lost))]

    def expect(self, sha256: str, size_bytes: int) -> None:
        """Have a file at hand that somebody is about to ask for; one too large to keep is left."""
        if size_bytes <= MAX_FILE_BYTES:
            with contextlib.suppress(NoSuchFile, BrokerSilent):  # whoever asks will be told
                self._shelf.open(sha256)

    def stream(self, sha256: str, start: int, until: int) -> Iterator[bytes]:
        """The bytes [start, until) of a file at least so large, as fast as they are taken.

        Raises NoSuchFile, BrokerSilent: whoever has begun to pass them on must break off.
        """
        if (kept := self._shelf.whole(sha256)) is not None:
            yield kept[start:until]
            return
        for chunk in self._chunks(sha256, start, until):
            yield chunk.data[: until - chunk.offset]

    def _chunks(self, sha256: str, start: int, until: int | None) -> Iterator[Chunk]:
        """The parts that hold [start, until), in order; until None: to the end of the file, at least one part."""
        with self._socket() as socket:
            offset = start
            while until is None or offset < until:
                goal = offset + self._credit_bytes if until is None else min(offset + self._credit_bytes, until)
                asked = GetFile(request_id=_fresh(), sha256=sha256, offset=offset, until=goal)
                self._send(socket, asked)
                while until is None or offset < min(goal, until):
                    chunk: Chunk = self._answer(socket, asked.request_id, Chunk)
                    until = chunk.size_bytes if until is None else until
                    if chunk.offset != offset or not (chunk.data or offset == until):
                        raise BrokerSilent("the broker sent a part of a file out of its order")
                    offset += len(chunk.data)
                    yield chunk

    def put(self, data: bytes) -> str:
        """Store these bytes and return their sha256 once they are durable. Raises NoRoom, BrokerSilent."""
        with self._socket() as socket:
            try:
                return put_bytes(socket, data, _fresh(), silence_ms=int(self._reply_s * 1000), give_up_ms=GIVE_UP_MS)
            except TransferFailed as e:
                if e.code == "full":
                    raise NoRoom(str(e)) from e
                raise BrokerSilent(f"the file could not be stored: {e}") from e

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _socket(self) -> Iterator[Any]:
        """A socket for one transfer. After a failure it is not used again: what was asked on it may still come."""
        session = secrets.token_hex(16).encode()
        socket = (
            self._idle.pop()
            if self._idle
            else sockets.dealer(self._context, "files", self._network, self._identity, session)
        )
        whole = False
        try:
            yield socket
            whole = True
        except NoSuchFile:
            whole = True
            raise
        finally:
            if whole and len(self._idle) < MAX_IDLE:
                self._idle.append(socket)
            else:
                socket.close()

    def _ask(self, socket: Any, message: Any, reply: type[Any]) -> Any:
        self._send(socket, message)
        return self._answer(socket, message.request_id, reply)

    def _send(self, socket: Any, message: Any) -> None:
        with gevent.Timeout(self._reply_s, BrokerSilent("the broker's file channel is away")):
            socket.send_multipart(codec.encode(message))

    def _answer(self, socket: Any, request_id: str, reply: type[Any]) -> Any:
        """The next message about this request. Raises NoSuchFile or BrokerSilent for a refusal."""
        with gevent.Timeout(self._reply_s, BrokerSilent("the broker's file channel did not answer in time")):
            while True:
                try:
                    message = codec.decode(socket.recv_multipart(), codec.FILES_BROKER_SENDS)
                except RemoteProtocolError as e:
                    raise BrokerSilent(f"the broker's file channel cannot be understood: {e}") from e
                if getattr(message, "request_id", "") == request_id:
                    break
        if isinstance(message, FileRefused):
            if message.code in ("not_found", "damaged"):
                raise NoSuchFile(message.text)
            raise BrokerSilent(f"the broker's file channel refused: {message.text}")
        if not isinstance(message, reply):
            raise BrokerSilent(f"the broker's file channel answered with {type(message).__name__}")
        return message


def _fresh() -> str:
    return secrets.token_hex(16)
