"""The file store: a folder of files named by their sha256. The folder is the index; there is no other.

A file has its name only once it is whole, checked and on disk: written under tmp/, synced, hashed, renamed, and then
its folder synced. A small one may be kept in the journal first, which is as durable, and gets its name a little later.
What tmp/ holds of a broken transfer is kept for a day, so that it can go on. Any thread may read and ask; each Partial
belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker.protocol.errors import FleetError, StoreError
from broker.protocol.ids import SHA256
from broker.store.disk import make_folder, sync_folder
from broker.store.journal import Journal

#: Room that uploads leave for the database, which must still record how running jobs end.
RESERVE_BYTES: Final = 64 << 20
MAX_FILE_BYTES: Final = 2 << 30
#: A partial upload that nobody touched for so long is swept.
KEEP_PARTIAL_S: Final = 24 * 3_600
#: A file that no job names stays for so long after somebody stored it or asked for it: an upload waits for its submit.
KEEP_UNNAMED_S: Final = 24 * 3_600
READ_BYTES: Final = 1 << 20
#: Beside the folders of files.
JOURNAL: Final = "journal"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_OUT_OF_FDS: Final = (errno.EMFILE, errno.ENFILE)


class FileProblem(FleetError):
    """Why a file cannot be taken or given. code: one of FileRefused's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextlib.contextmanager
def _told(doing: str) -> Iterator[None]:
    """Turns an OSError into a FileProblem."""
    try:
        yield
    except OSError as e:
        code = "full" if e.errno in _FULL else "busy" if e.errno in _OUT_OF_FDS else "damaged"
        raise FileProblem(code, f"{doing}: {e.strerror}") from e


def _check(sha256: str, found: str, size_bytes: int) -> None:
    if found != sha256:
        raise FileProblem("digest_mismatch", f"these {size_bytes} bytes have the sha256 {found}")


class Partial:
    """A file on its way in: `offset` bytes of `size_bytes` are there, in order."""

    def __init__(self, path: str, final: str, size_bytes: int, settling: set[str]) -> None:
        """settling: of the store; holds the sha256 while the file has its name and may lose it in a power cut."""
        self.sha256 = os.path.basename(final)
        self.size_bytes = size_bytes
        self._settling = settling
        self._path = path
        self._final = final
        with _told("cannot open a partial file"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self.offset = os.fstat(self._fd).st_size
            if self.offset > size_bytes:
                os.ftruncate(self._fd, 0)
                self.offset = 0

    def write(self, data: bytes) -> None:
        """Append. Raises FileProblem; the partial is then of no use: discard it."""
        rest = memoryview(data)
        with _told("cannot write a file"):
            while rest:
                written = os.pwrite(self._fd, rest, self.offset)
                self.offset += written
                rest = rest[written:]

    def finish(self) -> None:
        """Check the whole file and give it its name, durably: slow. Raises FileProblem; the partial is then gone."""
        try:
            with _told("cannot keep a file"):
                os.fsync(self._fd)
                _check(self.sha256, self._digest(), self.offset)
                os.utime(self._fd)  # its day begins now, whenever its last byte came
                self._settling.add(self.sha256)
                os.rename(self._path, self._final)
                try:
                    sync_folder(os.path.dirname(self._final))
                except OSError:
                    os.unlink(self._final)  # visible, but perhaps not after a power cut: nobody may rely on it
                    raise
        except FileProblem:
            self._remove()
            raise
        finally:
            self._settling.discard(self.sha256)
            self.close()

    def _digest(self) -> str:
        """Of what the disk gives back."""
        digest = hashlib.sha256()
        for offset in range(0, self.offset, READ_BYTES):
            digest.update(os.pread(self._fd, READ_BYTES, offset))
        return digest.hexdigest()

    def close(self) -> None:
        """Let go and keep what is there for another try. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        self.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class FileStore:
    def __init__(self, root: Path, *, max_file_bytes: int = MAX_FILE_BYTES, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or make the folder. reserve_bytes: free space that no upload may use. Raises StoreError."""
        self._root = root
        self._partials = root / "tmp"
        self._max_file_bytes = max_file_bytes
        self._reserve_bytes = reserve_bytes
        #: Held between a look at a file's age and what follows from it.
        self._ages = threading.Lock()
        #: Files whose name is not durable yet.
        self._settling: set[str] = set()
        try:
            make_folder(self._partials)
            # All at once, so that no file has to wait until the name of its folder is on disk.
            for number in range(256):
                (root / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
            self._journal = Journal(root / JOURNAL)
            for folder in (root, *filter(Path.is_dir, root.iterdir())):
                sync_folder(folder)  # a crash may have come between a new name and its sync
        except OSError as e:
            raise StoreError(f"{root}: cannot keep files there: {e.strerror}. Check the disk and its rights") from e
        self.sweep()

    def has(self, sha256: str) -> bool:
        """Whether the file is here, whole and durable. Any thread may ask."""
        return self.size(sha256) is not None

    def size(self, sha256: str) -> int | None:
        """Bytes of a stored file; None when it is not here. Raises FileProblem when the disk cannot tell."""
        path = self._path(sha256)
        if (kept := self._journal.get(sha256)) is not None:
            return len(kept)
        with _told("cannot look for a stored file"):
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                return None
        # In this order: what has its name and is not settling any more is durable.
        return None if sha256 in self._settling else size

    def claim(self, sha256: str) -> int | None:
        """As size; and if the file is here it stays for another KEEP_UNNAMED_S, whether a job names it or not."""
        with self._ages:
            size = self.size(sha256)
            if size is not None:
                with contextlib.suppress(OSError):  # it can be read all the same; who needs it will miss it and say so
                    os.utime(self._path(sha256))
            return size

    def stored(self) -> Iterator[str]:
        """The sha256 of every file, one folder after another as the disk lists them. Raises FileProblem.

        What comes or goes meanwhile may or may not be among them.
        """
        for number in range(256):
            with _told("cannot list the stored files"), os.scandir(self._root / f"{number:02x}") as entries:
                yield from (entry.name for entry in entries if SHA256.fullmatch(entry.name))

    def drop(self, sha256: str) -> int | None:
        """Remove a file that nobody needs; the bytes that it had. None: it stays, for it was claimed not long ago.

        Raises FileProblem.
        """
        path = self._path(sha256)
        with self._ages, _told("cannot remove a stored file"):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                return None
            if found.st_mtime > time.time() - KEEP_UNNAMED_S:
                return None
            os.unlink(path)
            return found.st_size

    def read(self, sha256: str, offset: int, size_bytes: int) -> bytes:
        """That part of a stored file, fewer bytes past its end. Raises FileProblem."""
        if (kept := self._journal.get(sha256)) is not None:
            return kept[offset : offset + size_bytes]
        try:
            with _told("cannot read a stored file"), open(self._path(sha256), "rb", buffering=0) as file:
                return os.pread(file.fileno(), size_bytes, offset)
        except FileProblem as e:
            if isinstance(e.__cause__, FileNotFoundError):
                raise FileProblem("not_found", f"no file {sha256} is stored") from e
            raise

    def begin(self, sha256: str, size_bytes: int) -> Partial:
        """Take a file in, or go on where an earlier try stopped. Raises FileProblem: too_large, full, busy, damaged.

        One Partial of a sha256 at a time: the caller sees to that.
        """
        if size_bytes > self._max_file_bytes:
            raise FileProblem("too_large", f"{size_bytes} bytes; at most {self._max_file_bytes} are taken")
        self._check_room(size_bytes)
        return Partial(f"{self._partials}/{sha256}", self._path(sha256), size_bytes, self._settling)

    def _check_room(self, size_bytes: int) -> None:
        with _told("cannot make room for a file"):
            free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < size_bytes + self._reserve_bytes:
            raise FileProblem(
                "full", f"{size_bytes} bytes do not fit: {free_bytes} are free, {self._reserve_bytes} kept"
            )

    # ---- small files

    def keep(self, sha256: str, data: bytes) -> bool:
        """Take a small file in at once, durably. False: not now, `begin` it. Raises FileProblem as Partial does.

        One thread keeps; `data` is at most AT_ONCE_BYTES.
        """
        if self._journal.full:
            return False
        self._check_room(len(data))
        _check(sha256, hashlib.sha256(data).hexdigest(), len(data))
        with _told("cannot keep a file"):
            self._journal.keep(sha256, data)
        return True

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to do."""
        return bool(self._journal.kept())

    @property
    def crowded(self) -> bool:
        """Whether it should be called now, lest small files become slow."""
        return self._journal.crowded

    def settle(self) -> None:
        """Put what the journal keeps among the other files: slow. One call at a time.

        Raises FileProblem: the rest stays in the journal, and is as durable there.
        """
        for sha256, data in self._journal.kept():
            # Not the name of an upload: somebody may send other bytes under this sha256.
            path = f"{self._partials}/{sha256}.kept"
            with _told("cannot keep a file"), contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            partial = Partial(path, self._path(sha256), len(data), self._settling)
            try:
                partial.write(data)
            except FileProblem:
                partial.discard()
                raise
            partial.finish()
            with _told("cannot keep a file"):
                self._journal.free(sha256)

    def sweep(self, older_than_s: float = KEEP_PARTIAL_S) -> None:
        """Remove what nobody went on with."""
        latest_s = time.time() - older_than_s
        # Whatever cannot be removed today may be tomorrow; one that is finished meanwhile is gone. The others go on.
        with contextlib.suppress(OSError), os.scandir(self._partials) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat().st_mtime < latest_s:
                        os.unlink(entry)

    def _path(self, sha256: str) -> str:
        # A Path costs more than the call it is made for: each file that comes in or goes out needs several.
        if SHA256.fullmatch(sha256) is None:
            raise ValueError(f"not a sha256: {sha256[:80]!r}")
        return f"{self._root}/{sha256[:2]}/{sha256}"
