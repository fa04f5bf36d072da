"""The client's side of the file channel: one Upload or Download, message in, messages out, and two calls that wait.

The classes know no socket, clock or file: whoever owns those feeds them, and calls `begin` at the start, after a
reconnect and after a silence. They go on where the transfer stands, under a new request id, so that no answer to an
earlier beginning can be taken for one to this.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from broker.protocol.codec import FILES_BROKER_SENDS, decode, encode
from broker.protocol.errors import FleetError, RemoteProtocolError
from broker.protocol.files import (
    AT_ONCE_BYTES,
    CHUNK_BYTES,
    CREDIT_BYTES,
    Chunk,
    FileRefused,
    GetFile,
    Have,
    PutFile,
    SendFrom,
)

#: After so long without an answer a waiting call begins again; without a byte of progress for the other it gives up.
SILENCE_MS: Final = 5_000
GIVE_UP_MS: Final = 60_000


class TransferFailed(FleetError):
    """The file did not get through. code: one of FileRefused's, or silent: nobody answered."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Transfer:
    """What both directions share. Over when `done`, or when `failure` or `fault` says why not."""

    def __init__(self, request_id: str, sha256: str) -> None:
        self.sha256 = sha256
        #: Of the present beginning; each beginning counts it up by one.
        self.request_id = request_id
        #: How far it got, in bytes.
        self.offset = 0
        self.done = False
        self.failure: TransferFailed | None = None
        #: What the disk said to whoever reads or writes the file here.
        self.fault: OSError | None = None
        #: Ids of the beginnings before this one.
        self._earlier: set[str] = set()
        self._begun = False

    @property
    def over(self) -> bool:
        return self.done or self.failure is not None or self.fault is not None

    def begin(self) -> list[Any]:
        """The messages that start it, or start it again where it stands."""
        if self._begun:
            self._earlier.add(self.request_id)
            self.request_id = f"{(int(self.request_id, 16) + 1) % (1 << 128):032x}"
        self._begun = True
        return self._opening()

    def knows(self, message: Any) -> bool:
        """Whether a message of the broker is about this transfer, though it may answer an earlier beginning."""
        request_id = getattr(message, "request_id", None)
        return request_id == self.request_id or request_id in self._earlier

    def feed(self, message: Any) -> list[Any]:
        """What to send in answer to a message of the broker; nothing for one that is not about this transfer."""
        request_id = getattr(message, "request_id", "")
        if not self.over and request_id in self._earlier:
            return self._late(message)
        if self.over or request_id != self.request_id:
            return []
        if not isinstance(message, FileRefused):
            return self._take(message)
        if message.code == "restart" or self._blameless(message):
            return self.begin()
        return self._fail(message.code, message.text)

    def _fail(self, code: str, text: str) -> list[Any]:
        self.failure = TransferFailed(code, f"{self.sha256}: {text}")
        return []

    def _opening(self) -> list[Any]:
        raise NotImplementedError

    def _take(self, message: Any) -> list[Any]:
        raise NotImplementedError

    def _late(self, message: Any) -> list[Any]:
        """An answer to an earlier beginning."""
        return []

    def _blameless(self, refused: FileRefused) -> bool:
        """Whether a refusal is the fault of what was there before this beginning."""
        return False


class Upload(Transfer):
    def __init__(
        self,
        request_id: str,
        sha256: str,
        size_bytes: int,
        read: Callable[[int, int], bytes],
        *,
        chunk_bytes: int = CHUNK_BYTES,
        at_once_bytes: int = AT_ONCE_BYTES,
    ) -> None:
        """read(offset, size_bytes): that part of the file; fewer bytes mean that the file shrank.

        at_once_bytes: at most chunk_bytes.
        """
        super().__init__(request_id, sha256)
        self.size_bytes = size_bytes
        self._read = read
        self._chunk_bytes = chunk_bytes
        self._at_once = size_bytes <= at_once_bytes
        self._sent = 0
        #: Whether every byte the broker has came from this beginning.
        self._all_ours = True

    @property
    def launched(self) -> bool:
        """Whether the beginning took along every byte: nothing more has to be sent, unless it is lost."""
        return self._at_once and self._begun and not self.over

    def _opening(self) -> list[Any]:
        self._sent, self._all_ours = 0, True
        data = b""
        if self._at_once:
            data = self._read(0, self.size_bytes)
            if len(data) != self.size_bytes:
                return self._shrunk(len(data))
            self._sent = self.size_bytes
        return [PutFile(request_id=self.request_id, sha256=self.sha256, size_bytes=self.size_bytes, data=data)]

    def _take(self, message: Any) -> list[Any]:
        if isinstance(message, Have):
            self.offset, self.done = self.size_bytes, True
        if not isinstance(message, SendFrom):
            return []
        self.offset = message.offset
        if message.offset > (0 if self._at_once else self._sent):
            # From an earlier beginning, or from somebody else who sends the same file.
            self._all_ours = False
        self._sent = max(self._sent, message.offset)
        return self._chunks(min(message.until, self.size_bytes))

    def _chunks(self, until: int) -> list[Any]:
        """What has not been sent up to there."""
        chunks: list[Any] = []
        while self._sent < until:
            wanted = min(self._chunk_bytes, until - self._sent)
            data = self._read(self._sent, wanted)
            if len(data) != wanted:
                return self._shrunk(self._sent + len(data))
            chunks.append(Chunk(request_id=self.request_id, offset=self._sent, size_bytes=self.size_bytes, data=data))
            self._sent += wanted
        return chunks

    def _shrunk(self, size_bytes: int) -> list[Any]:
        return self._fail("damaged", f"only {size_bytes} of {self.size_bytes} bytes can be read here")

    def _blameless(self, refused: FileRefused) -> bool:
        # What the broker kept from before was bad. It has thrown that away: the next beginning sends all itself.
        return refused.code == "digest_mismatch" and not self._all_ours


class Download(Transfer):
    def __init__(
        self,
        request_id: str,
        sha256: str,
        write: Callable[[bytes], object],
        *,
        max_bytes: int,
        credit_bytes: int = CREDIT_BYTES,
    ) -> None:
        """write: takes the file's bytes in order. They are the right ones only once the download is done."""
        super().__init__(request_id, sha256)
        #: Unknown until the first chunk.
        self.size_bytes: int | None = None
        self._write = write
        self._max_bytes = max_bytes
        self._credit_bytes = credit_bytes
        self._asked = 0
        self._digest = hashlib.sha256()

    def _opening(self) -> list[Any]:
        return [self._ask(self.offset, self.offset + self._credit_bytes)]

    def _ask(self, offset: int, until: int) -> GetFile:
        self._asked = until
        return GetFile(request_id=self.request_id, sha256=self.sha256, offset=offset, until=until)

    def _take(self, message: Any) -> list[Any]:
        if not isinstance(message, Chunk) or message.offset < self.offset:
            return []
        if message.offset > self.offset:
            return self.begin()  # what was between is lost
        if message.size_bytes > self._max_bytes:
            return self._fail("too_large", f"{message.size_bytes} bytes, at most {self._max_bytes} are wanted")
        self.size_bytes = message.size_bytes
        self._write(message.data)
        self._digest.update(message.data)
        self.offset += len(message.data)
        if self.offset >= message.size_bytes:
            if self._digest.hexdigest() != self.sha256:
                return self._fail("digest_mismatch", "other bytes than asked for arrived")
            self.done = True
            return []
        until = min(self.offset + self._credit_bytes, message.size_bytes)
        return [self._ask(self._asked, until)] if until > self._asked else []

    def _late(self, message: Any) -> list[Any]:
        # The same bytes, whichever beginning asked for them: on a slow line nothing that arrives is wasted.
        return self._take(message) if isinstance(message, Chunk) and message.offset == self.offset else []


def put_bytes(
    socket: zmq.Socket[Any],
    data: bytes,
    request_id: str,
    *,
    silence_ms: int = SILENCE_MS,
    give_up_ms: int = GIVE_UP_MS,
) -> str:
    """Store these bytes and return their sha256, once they are durable. Raises TransferFailed.

    socket: a DEALER of the file channel that nobody else uses meanwhile; of zmq.green, if greenlets shall run.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    read = memoryview(data)
    upload = Upload(request_id, sha256, len(data), lambda offset, size: bytes(read[offset : offset + size]))
    run(socket, upload, silence_ms=silence_ms, give_up_ms=give_up_ms)
    return sha256


def get_bytes(
    socket: zmq.Socket[Any],
    sha256: str,
    request_id: str,
    *,
    max_bytes: int,
    silence_ms: int = SILENCE_MS,
    give_up_ms: int = GIVE_UP_MS,
) -> bytes:
    """The stored file, checked against its sha256. Raises TransferFailed. socket: as for put_bytes."""
    found = io.BytesIO()
    download = Download(request_id, sha256, found.write, max_bytes=max_bytes)
    run(socket, download, silence_ms=silence_ms, give_up_ms=give_up_ms)
    return found.getvalue()


def run(socket: zmq.Socket[Any], transfer: Transfer, *, silence_ms: int, give_up_ms: int) -> None:
    """Carry a transfer to its end, waiting; begin it again after each silence. Raises TransferFailed."""
    outbox = transfer.begin()
    offset, moved_s = transfer.offset, time.monotonic()
    while not transfer.over:
        if _sent(socket, outbox, silence_ms) and socket.poll(silence_ms):
            outbox = _fed(transfer, socket.recv_multipart())
        else:
            outbox = transfer.begin()
        if transfer.offset != offset:
            offset, moved_s = transfer.offset, time.monotonic()
        elif time.monotonic() - moved_s > give_up_ms / 1_000:
            raise TransferFailed("silent", f"{transfer.sha256}: stuck at byte {offset} for {give_up_ms} ms")
    if transfer.failure is not None:
        raise transfer.failure


def _sent(socket: zmq.Socket[Any], messages: list[Any], silence_ms: int) -> bool:
    for message in messages:
        if not socket.poll(silence_ms, zmq.POLLOUT):
            return False
        socket.send_multipart(encode(message), zmq.NOBLOCK)
    return True


def _fed(transfer: Transfer, frames: list[bytes]) -> list[Any]:
    try:
        return transfer.feed(decode(frames, FILES_BROKER_SENDS))
    except RemoteProtocolError:
        return []  # as good as lost: the silence that follows begins it again
