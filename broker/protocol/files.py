"""Messages of the file channel: content-addressed bytes in chunks, paid for by credit, both ways.

put:  PutFile → (Have | SendFrom) ; Chunk… within the credit, each answered by SendFrom, the last by Have
get:  GetFile (offset, credit) → Chunk… ; GetFile again for more ; FileRefused when there is none
A small file needs no credit: all of it comes in its PutFile, which is answered by Have, once it is durable.
A file is visible under its sha256 only when it is whole and on disk; Have is sent after that. Whoever hears nothing
for a while begins again under a new request_id, where it stands; answers to the old one are then ignored.
"""

from __future__ import annotations

from typing import Annotated

from broker.protocol.records import Bytes, Line, Name, RequestId, Sha256
from broker.protocol.schema import Blob
from broker.protocol.value import dataclass

#: The largest chunk either side may send.
MAX_CHUNK_BYTES = 1 << 20
#: What a side sends, and what it lets be on its way to it, unless its configuration says otherwise.
CHUNK_BYTES = 256 << 10
CREDIT_BYTES = 8 * CHUNK_BYTES
#: A file of at most this size is sent in its PutFile.
AT_ONCE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PutFile:
    """I want to store these bytes; resumes where an earlier transfer of the same file stopped.

    The answer is SendFrom, unless the file is there already, or is refused, or is all in `data` and the first of it
    that arrives."""

    request_id: RequestId
    sha256: Sha256
    size_bytes: Bytes
    #: All of the file, or nothing.
    data: Annotated[bytes, Blob(AT_ONCE_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFrom:
    """Send from `offset`, at most up to `until` (exclusive), then wait."""

    request_id: RequestId
    offset: Bytes
    until: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes at `offset`."""

    request_id: RequestId
    offset: Bytes
    size_bytes: Bytes  # of the whole file
    data: Annotated[bytes, Blob(MAX_CHUNK_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """The file is whole, checked and durable."""

    request_id: RequestId
    sha256: Sha256
    size_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GetFile:
    """Send me [offset, until) of a stored file in chunks."""

    request_id: RequestId
    sha256: Sha256
    offset: Bytes
    until: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StatFile:
    """Is it there? Answered by Have or FileRefused(not_found)."""

    request_id: RequestId
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRefused:
    """code: not_found, digest_mismatch, too_large, full, busy (ask later), damaged (the disk failed), or
    restart (the broker knows nothing of this transfer, or lost a part of it: begin again)."""

    request_id: RequestId
    code: Name
    text: Line
