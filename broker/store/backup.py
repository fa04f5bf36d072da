"""A backup of a broker's data while it runs, and the proof that a broker could start from one.

A backup folder holds databases, one for each backup, and one `files` folder that all of them share: a stored file never
changes, so only new ones are copied. The database is copied first: whatever it names was durable before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker.protocol.errors import StoreError
from broker.store import journal
from broker.store.disk import make_folder, sync_folder
from broker.store.files import JOURNAL
from broker.store.sqlite import SqliteStore

DATABASE: Final = "fleet.sqlite3"
#: A database that is being copied. One name for all of them: what a killed backup leaves goes with the next one.
PARTIAL: Final = "database.part"
#: Every file that some job needs or made. Not by the jobs' own columns: a backup is made before an upgrade, too, of a
#: database that a start has yet to bring up.
_NAMED: Final = "SELECT DISTINCT lower(hex(sha256)) FROM reference ORDER BY sha256"


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds."""

    database: Path
    jobs: int
    files: int
    copied: int
    #: Named by a job and not there, in the backup or (while one is made) in the data either.
    missing: tuple[str, ...]
    #: There, and not what their name says.
    damaged: tuple[str, ...] = ()


def make(data: Path, folder: Path, stamp: str) -> Summary:
    """Copy database and files. stamp: names this backup, such as the time. Raises StoreError."""
    if not (data / DATABASE).exists():
        raise StoreError(f"{data / DATABASE}: there is no database to back up: check [broker] data")
    target = folder / f"{stamp}.sqlite3"
    if target.exists():
        raise StoreError(f"{target} is there already: choose another folder, or wait a second")
    partial = folder / PARTIAL
    try:
        make_folder(folder)
        with _alone(folder), _gone_after(partial):
            _copy_database(data / DATABASE, partial)
            jobs, names = _named(partial)
            # Before the folders are looked at: what leaves the journal meanwhile is in one of them by then.
            kept = {name: content for name, (_, content) in journal.found(data / "files" / JOURNAL).items()}
            present = [
                name for name in names if name in kept or _place(data, name).exists() or _place(folder, name).exists()
            ]
            copied = sum(_copy_file(data, folder, name, kept.get(name)) for name in present)
            # Only now is it a backup: whatever it names is beside it.
            partial.rename(target)
            sync_folder(folder)
    except (OSError, sqlite3.Error) as e:
        raise StoreError(f"cannot back up {data} to {folder}: {e}. Nothing was changed there") from e
    missing = tuple(sorted(set(names) - set(present)))
    return Summary(target, jobs, len(present), copied, missing)


def verify(database: Path) -> Summary:
    """Restore a backup to a folder of its own, open it as a broker does, and check every file. Raises StoreError."""
    folder = database.parent
    if not database.exists():
        raise StoreError(f"{database}: there is no such backup")
    with tempfile.TemporaryDirectory(prefix="comfyfleet-verify-") as temporary:
        copy = Path(temporary) / DATABASE
        try:
            shutil.copyfile(database, copy)
        except OSError as e:
            raise StoreError(f"cannot read {database}: {e.strerror}") from e
        store = SqliteStore(copy, full_check=True)
        try:
            jobs = sum(store.counts().values())
            for _ in store.live():
                pass  # each record of a live job is read, as at a start
        finally:
            store.close()
        _, names = _named(copy)
    missing = tuple(name for name in names if not _place(folder, name).exists())
    damaged = tuple(name for name in names if name not in missing and _digest(_place(folder, name)) != name)
    return Summary(database, jobs, len(names) - len(missing), 0, missing, damaged)


def newest(folder: Path) -> Path:
    """The last backup in a folder. Raises StoreError when there is none."""
    found = sorted(folder.glob("*.sqlite3"))
    if not found:
        raise StoreError(f"{folder}: there is no backup in this folder")
    return found[-1]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While another backup is written to this folder, none is begun: both would write the same partial files."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StoreError(f"{folder}: another backup is being written there: wait for its end") from e
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _gone_after(partial: Path) -> Iterator[None]:
    """Begin without the partial copy of an earlier backup, and leave none, however this one ends."""
    # With its journals: SQLite would undo in the new copy what was begun in the old one, or do it there.
    leftovers = [partial.with_name(partial.name + end) for end in ("", "-journal", "-wal", "-shm")]
    try:
        for path in leftovers:
            path.unlink(missing_ok=True)
        yield
    finally:
        for path in leftovers:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _copy_database(source: Path, target: Path) -> None:
    """One consistent copy, though the broker goes on writing; durable, and one file."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=60)) as live,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        live.execute("PRAGMA query_only = ON")
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _named(database: Path) -> tuple[int, list[str]]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        (jobs,) = db.execute("SELECT count(*) FROM job").fetchone()
        return jobs, [name for (name,) in db.execute(_NAMED)]


def _copy_file(data: Path, folder: Path, name: str, content: bytes | None) -> bool:
    """Whether it had to be copied. content: of a file that has no place of its own yet."""
    source, target = _place(data, name), _place(folder, name)
    if target.exists():
        return False
    make_folder(target.parent)
    partial = target.with_name(name + ".part")
    try:
        if content is not None:
            partial.write_bytes(content)
        else:
            shutil.copyfile(source, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        sync_folder(target.parent)
    except FileNotFoundError:
        partial.unlink(missing_ok=True)  # deleted since, with the job that named it
        return False
    return True


def _place(root: Path, name: str) -> Path:
    return root / "files" / name[:2] / name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
