"""The broker's side of the file channel: who sends and who wants what, and whose turn it is.

A partial file belongs to its sha256 and not to a peer: whoever sends the next bytes advances it, so a peer that comes
back under another name goes on, and two that send the same file share the work. Knows no socket, thread or clock;
files.py feeds it messages and sends what it answers. Touches the disk through a FileStore only.
"""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Any, Final

from broker.protocol.errors import RemoteProtocolError
from broker.protocol.files import (
    Chunk,
    FileRefused,
    GetFile,
    Have,
    PutFile,
    SendFrom,
    StatFile,
)
from broker.store.files import FileProblem, FileStore, Partial

#: Transfers one peer may have at once, uploads of all peers together (each holds a descriptor), downloads of all.
MAX_PER_PEER: Final = 16
MAX_UPLOADS: Final = 256
MAX_DOWNLOADS: Final = 4_096
#: Request ids under which one file may be on its way in; the one that rested longest makes room.
MAX_SENDERS: Final = 64
#: A transfer that its peer let rest for so long is forgotten; the peer may begin it again where it stood.
IDLE_S: Final = 30.0

#: A routing id, and the request id of one transfer of that peer.
Key = tuple[bytes, str]
#: A peer, and a message for it.
Reply = tuple[bytes, Any]


@dataclasses.dataclass(slots=True)
class Incoming:
    partial: Partial
    #: Everyone who sends this file: how far each may send, and when it was last heard.
    until: dict[Key, int] = dataclasses.field(default_factory=dict)
    heard_s: dict[Key, float] = dataclasses.field(default_factory=dict)
    #: All bytes are there; somebody is syncing and checking them.
    finishing: bool = False


@dataclasses.dataclass(slots=True)
class Outgoing:
    """What a peer has asked for and not been sent yet: [offset, until)."""

    sha256: str
    offset: int
    until: int
    size_bytes: int
    since_s: float


class Transfers:
    def __init__(self, store: FileStore, *, chunk_bytes: int, credit_bytes: int) -> None:
        """chunk_bytes: of a message to a peer; credit_bytes: of one file that a peer may have on its way to us."""
        self._store = store
        self._chunk_bytes = chunk_bytes
        self._credit_bytes = credit_bytes
        #: By sha256.
        self._uploads: dict[str, Incoming] = {}
        self._sha256_of: dict[Key, str] = {}
        #: In the order of their turns.
        self._downloads: dict[Key, Outgoing] = {}
        self._whole: list[Partial] = []
        #: Whether a file has become durable in `handle`; whoever looks takes it back.
        self.kept = False

    def handle(self, peer: bytes, message: Any, now_s: float) -> list[Reply]:
        """The replies to a client's message. Raises RemoteProtocolError for one that no client of ours sends."""
        key = (peer, message.request_id)
        try:
            match message:
                case PutFile():
                    return self._put(key, message, now_s)
                case Chunk():
                    return self._chunk(key, message, now_s)
                case GetFile():
                    return self._get(key, message, now_s)
                case StatFile():
                    return self._stat(key, message)
        except FileProblem as e:
            return [_refused(key, e)]
        raise RemoteProtocolError("FORBIDDEN", f"{type(message).__name__} is not for this socket")

    # ---- in

    def _put(self, key: Key, message: PutFile, now_s: float) -> list[Reply]:
        size = self._store.claim(message.sha256)
        upload = self._uploads.get(message.sha256)
        # A stored file of another size is damaged, or the peer errs: let it send, the digest decides.
        if upload is None and size == message.size_bytes:
            return [(key[0], Have(request_id=key[1], sha256=message.sha256, size_bytes=size))]
        # With others about a journal would only be one write more: syncs wait for each other anyway.
        small = len(message.data) == message.size_bytes and not self._uploads and not self._downloads
        if small and self._store.keep(message.sha256, message.data):
            self.kept = True
            return [(key[0], Have(request_id=key[1], sha256=message.sha256, size_bytes=message.size_bytes))]
        if self._sha256_of.get(key, message.sha256) != message.sha256:
            raise RemoteProtocolError("INVALID", "PutFile.request_id: in use for another file")
        if message.sha256 not in self._sent_by(key[0]):
            self._admit(key[0], len(self._uploads), MAX_UPLOADS)
        if upload is None:
            upload = Incoming(self._store.begin(message.sha256, message.size_bytes))
            self._uploads[message.sha256] = upload
        elif upload.partial.size_bytes != message.size_bytes:
            raise FileProblem("busy", "somebody else is sending this file, with another size")
        elif key not in upload.until and len(upload.until) >= MAX_SENDERS:
            self._forget(min(upload.heard_s, key=upload.heard_s.__getitem__))
        self._sha256_of[key] = message.sha256
        reply = self._credit(key, upload, now_s)
        if len(message.data) != message.size_bytes:
            if message.data:
                self._forget(key)
                raise RemoteProtocolError("INVALID", "PutFile.data: neither nothing nor the whole file")
            self._finish_if_whole(upload)
            return [reply]
        # That a part is there from elsewhere is news to its sender: the digest may fail for that.
        news = [reply] if upload.partial.offset else []
        return news + self._append(key, upload, 0, message.data, now_s)

    def _chunk(self, key: Key, message: Chunk, now_s: float) -> list[Reply]:
        sha256 = self._sha256_of.get(key)
        if sha256 is None:
            raise FileProblem("restart", "no such transfer here: begin it again")
        upload = self._uploads[sha256]
        end = message.offset + len(message.data)
        if message.size_bytes != upload.partial.size_bytes or end > upload.until[key]:
            self._forget(key)
            raise RemoteProtocolError("INVALID", f"Chunk: {end} of {message.size_bytes} bytes is past its credit")
        if message.offset > upload.partial.offset:
            self._forget(key)
            raise FileProblem("restart", f"bytes before {message.offset} are missing: begin it again")
        return self._append(key, upload, message.offset, message.data, now_s)

    def _append(self, key: Key, upload: Incoming, offset: int, data: bytes, now_s: float) -> list[Reply]:
        """Take what is new of the bytes at `offset`, which is no further than the file has got."""
        partial = upload.partial
        if offset + len(data) > partial.offset:
            try:
                partial.write(data[partial.offset - offset :])
            except FileProblem as e:
                partial.discard()
                return self._close(upload, e)
        reply = self._credit(key, upload, now_s)
        self._finish_if_whole(upload)
        return [] if upload.finishing else [reply]

    def take_whole(self) -> list[Partial]:
        """Files whose bytes are all there since the last call: `finish` each, then say `finished`."""
        whole, self._whole = self._whole, []
        return whole

    @property
    def idle(self) -> bool:
        """Whether nobody would notice a pause, but for whoever sends the one file that comes in."""
        return len(self._uploads) <= 1 and not self._downloads

    def finished(self, partial: Partial, problem: FileProblem | None) -> list[Reply]:
        """What to tell everyone who sent this file, now that `partial.finish` returned or raised `problem`."""
        return self._close(self._uploads[partial.sha256], problem)

    def _credit(self, key: Key, upload: Incoming, now_s: float) -> Reply:
        partial = upload.partial
        upload.heard_s[key] = now_s
        upload.until[key] = min(partial.offset + self._credit_bytes, partial.size_bytes)
        return key[0], SendFrom(request_id=key[1], offset=partial.offset, until=upload.until[key])

    def _finish_if_whole(self, upload: Incoming) -> None:
        if upload.partial.offset == upload.partial.size_bytes and not upload.finishing:
            upload.finishing = True
            self._whole.append(upload.partial)

    def _close(self, upload: Incoming, problem: FileProblem | None) -> list[Reply]:
        partial = upload.partial
        del self._uploads[partial.sha256]
        replies: list[Reply] = []
        for key in upload.until:
            del self._sha256_of[key]
            have = Have(request_id=key[1], sha256=partial.sha256, size_bytes=partial.size_bytes)
            replies.append((key[0], have) if problem is None else _refused(key, problem))
        return replies

    # ---- out

    def _get(self, key: Key, message: GetFile, now_s: float) -> list[Reply]:
        size = self._store.claim(message.sha256)
        if size is None:
            raise FileProblem("not_found", f"no file {message.sha256} is stored")
        known = self._downloads.get(key)
        if known is None:
            self._admit(key[0], len(self._downloads), MAX_DOWNLOADS)
        # More credit for what is still being sent goes on where that ends; anything else begins anew.
        goes_on = known is not None and (known.sha256, known.until) == (message.sha256, message.offset)
        offset = known.offset if known is not None and goes_on else min(message.offset, size)
        until = min(max(message.until, offset), size)
        self._downloads[key] = Outgoing(message.sha256, offset, until, size, now_s)
        return []

    def turns(self, most: int) -> list[Key]:
        """Up to so many downloads that wait, the longest without a turn first."""
        return list(islice(self._downloads, most))

    def chunk_for(self, key: Key) -> Any:
        """The next message of a download: a Chunk, or why there is none."""
        wanted = self._downloads[key]
        size = min(self._chunk_bytes, wanted.until - wanted.offset)
        try:
            data = self._store.read(wanted.sha256, wanted.offset, size)
            if len(data) != size:
                raise FileProblem("damaged", f"the stored file ends before byte {wanted.offset + size}")
        except FileProblem as e:
            return _refused(key, e)[1]
        return Chunk(request_id=key[1], offset=wanted.offset, size_bytes=wanted.size_bytes, data=data)

    def passed(self, key: Key) -> None:
        """The transport took nothing: to the end of the line, with the chunk still to be sent."""
        if key in self._downloads:
            self._downloads[key] = self._downloads.pop(key)

    def sent(self, key: Key, message: Any, now_s: float) -> None:
        """The transport took what `chunk_for` gave: to the end of the line with it, or done."""
        wanted = self._downloads.pop(key)
        if isinstance(message, Chunk):
            wanted.offset += len(message.data)
            if wanted.offset < wanted.until:
                wanted.since_s = now_s
                self._downloads[key] = wanted

    # ---- both

    def _stat(self, key: Key, message: StatFile) -> list[Reply]:
        size = self._store.claim(message.sha256)
        # A file that is being finished may have its name already and yet not survive a power cut.
        if size is None or message.sha256 in self._uploads:
            raise FileProblem("not_found", f"no file {message.sha256} is stored")
        return [(key[0], Have(request_id=key[1], sha256=message.sha256, size_bytes=size))]

    def _admit(self, peer: bytes, total: int, most: int) -> None:
        """Raises FileProblem(busy) when one more transfer is too many."""
        of_peer = len(self._sent_by(peer)) + sum(of == peer for of, _ in self._downloads)
        if of_peer >= MAX_PER_PEER or total >= most:
            raise FileProblem("busy", "too many transfers at once: ask again when one is over")

    def _sent_by(self, peer: bytes) -> set[str]:
        return {sha256 for (of, _), sha256 in self._sha256_of.items() if of == peer}

    def drop_peer(self, peer: bytes) -> None:
        """Forget all that a peer was doing; what it sent stays for whoever goes on."""
        for key in [key for key in (*self._sha256_of, *self._downloads) if key[0] == peer]:
            self._forget(key)

    def expire(self, now_s: float) -> None:
        """Forget transfers that rest."""
        latest_s = now_s - IDLE_S
        uploads = (pair for upload in self._uploads.values() for pair in upload.heard_s.items())
        downloads = ((key, wanted.since_s) for key, wanted in self._downloads.items())
        for key in [key for key, heard_s in (*uploads, *downloads) if heard_s < latest_s]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._downloads.pop(key, None)
        sha256 = self._sha256_of.pop(key, None)
        if sha256 is None:
            return
        upload = self._uploads[sha256]
        del upload.until[key], upload.heard_s[key]
        if not upload.until and not upload.finishing:
            upload.partial.close()
            del self._uploads[sha256]

    def close(self) -> None:
        """Let go of every partial file; each stays for another try."""
        for upload in self._uploads.values():
            upload.partial.close()


def _refused(key: Key, problem: FileProblem) -> Reply:
    return key[0], FileRefused(request_id=key[1], code=problem.code, text=str(problem)[:500])
