"""The durable store: one SQLite file in WAL mode, every group of writes one transaction, every commit one fdatasync.

One thread uses it. It fails for good: after the first error of a write, a commit or a read it is closed, and its holder
must exit, because a disk that lost one fsync may report the next as done. It never deletes or mends a damaged file.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.core.step import AddStory, DeleteJob, InsertJob, Remember, SaveFigure, UpdateJob, Write
from broker.protocol.errors import RemoteProtocolError, StoreError
from broker.protocol.records import JobState
from broker.protocol.story import StoryLine
from broker.store import rules, words
from broker.store.api import Page, Wanted
from broker.store.disk import make_folder, sync_folder
from broker.store.failure import damaged
from broker.store.lock import DataLock
from broker.store.migrations import migrate
from broker.store.reader import BUSY_S, JOB, SqliteReader
from broker.store.rows import COLUMNS, life_of, story_line, story_row, to_row

#: Pages of log (4 KiB each) after which a commit folds it in by itself: the bound when there is never an idle moment.
LOG_PAGES: Final = 8_192
#: Later than any time that is written down.
_LATEST: Final = 2**63 - 1
#: Of the database, kept in memory. It fills with whatever was touched lately, of use again or not; the kernel has the
#: rest.
CACHE_KIB: Final = 5_000
#: Rows changed before it is worth folding the log in when idle.
FOLD_ROWS: Final = 1_000
#: Records of live jobs read in one go at a start.
AT_ONCE: Final = 500

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA wal_autocheckpoint = {LOG_PAGES}",
    f"PRAGMA journal_size_limit = {LOG_PAGES * 4_096}",
    f"PRAGMA cache_size = -{CACHE_KIB}",
    "PRAGMA trusted_schema = OFF",
)
_INSERT_JOB: Final = f"INSERT INTO job ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_ADD_STORY: Final = """
    INSERT INTO story
    VALUES (?1, (SELECT coalesce(max(line), 0) + 1 FROM story WHERE sequence = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)"""
_UPDATE_JOB: Final = "UPDATE job SET state = ?, life = ?, finished_utc_ms = ? WHERE sequence = ?"

_REMEMBER: Final = "INSERT INTO deleted (job_id, owner, idempotency_key) VALUES (?, ?, ?) RETURNING number"
_SAVE_FIGURE: Final = "INSERT OR REPLACE INTO figure VALUES (?, ?, ?, ?, ?)"
_FORGET_FIGURES: Final = """
    DELETE FROM figure WHERE rowid <= (SELECT rowid FROM figure ORDER BY rowid DESC LIMIT 1 OFFSET ?)"""
_REFER: Final = "INSERT INTO reference (sha256, sequence) VALUES (?, ?)"
_UNREFER: Final = "DELETE FROM reference WHERE sha256 = ? AND sequence = ?"
_OVER: Final = ", ".join(f"'{state}'" for state in JobState if state.terminal)
_ENDED: Final = f"""
    {JOB} WHERE finished_utc_ms < ? AND +state IN ({_OVER}) ORDER BY finished_utc_ms, sequence LIMIT ?"""


class SqliteStore(SqliteReader):
    def __init__(self, path: Path, *, full_check: bool = False) -> None:
        """Open or create the database, alone.

        The file is read and checked whole; full_check: indexes are compared with their tables too, which is far slower.
        Raises StoreError when another broker has it, when it is damaged, foreign or of a newer release, or when the
        disk refuses.
        """
        self._path = path
        self._db: sqlite3.Connection | None = None
        #: Records written in this process of jobs still live: the very objects the core holds, so they cost no memory
        #: and save reading a record back to learn what an update changes.
        self._live: dict[str, JobRecord] = {}
        #: What belongs to the open transaction and is not in the database yet: of each updated job the record that is
        #: there and the newest, and rows of stories. A job that changes twice is written once.
        self._updated: dict[str, tuple[JobRecord, JobRecord]] = {}
        self._told: list[tuple[Any, ...]] = []
        self._folded_rows = 0
        try:
            make_folder(path.parent)
        except OSError as e:
            raise StoreError(f"{path.parent}: cannot make this folder: {e.strerror}") from e
        self._lock = DataLock(path.with_name(path.name + ".lock"))
        try:
            if not path.exists():  # SQLite would let others read it, and its log as well
                os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._prepare(self._db, "integrity_check" if full_check else "quick_check")
            sync_folder(path.parent)  # SQLite syncs it too, but takes no notice when that fails
        except (sqlite3.Error, OSError) as e:
            raise self._fail(e, "opening") from e
        except StoreError:
            self.close()
            raise
        self._counts = self._count()
        self._last_sequence = super().last_sequence()

    def _prepare(self, db: sqlite3.Connection, check: str) -> None:
        findings = [line for (line,) in db.execute(f"PRAGMA {check}(3)")]
        if findings != ["ok"]:
            raise damaged(self._path, "; ".join(findings))
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"{self._path}: this file system allows no write-ahead log ({mode}). Use a local disk")
        for pragma in _PRAGMAS:
            db.execute(pragma)
        migrate(db, self._path)
        db.execute(_FORGET_FIGURES, (rules.FIGURES,))

    def _count(self) -> dict[str, int]:
        counts = {state.value: 0 for state in JobState}
        for state, count in self._execute("SELECT state, count(*) FROM job GROUP BY state"):
            if state not in counts:
                job_id = self._execute("SELECT job_id FROM job WHERE state = ? LIMIT 1", state)[0][0]
                finding = f"job {job_id} has the state {state[:60]!r}, which is none of {', '.join(JobState)}"
                raise self._refuse(damaged(self._path, finding))
            counts[state] = count
        return counts

    # ---- writes

    def apply(self, write: Write) -> None:
        if not self._open.in_transaction:
            self._execute("BEGIN IMMEDIATE")
        match write:
            case InsertJob(record, workflow, form, text):
                self._insert(record, workflow, form)
                searched = " ".join(words.words_of(f"{record.title}\n{text}"))
                self._execute("INSERT INTO search (rowid, words) VALUES (?, ?)", record.sequence, searched)
            case UpdateJob(record):
                self._update(record)
            case AddStory(job_id, line):
                self._told.append((self._known(job_id).sequence, *story_row(line)))
            case DeleteJob(job_id):
                self._delete(job_id)
            case Remember(key, ""):
                self._execute("DELETE FROM note WHERE key = ?", key)
            case Remember(key, value):
                self._execute("INSERT OR REPLACE INTO note VALUES (?, ?)", key, value)
            case SaveFigure(figure):
                self._execute(_SAVE_FIGURE, *dataclasses.astuple(figure))

    def commit(self) -> None:
        self._flush()
        if self._open.in_transaction:
            self._execute("COMMIT")

    def checkpoint(self) -> None:
        """Fold the log into the database when that is worth it, which then takes some 10 ms: call it when idle.

        Figures that the core has forgotten go, too.

        Never waits for a reader; what one still needs is left for the next call.
        """
        db = self._open
        if not db.in_transaction and db.total_changes - self._folded_rows >= FOLD_ROWS:
            self._execute(_FORGET_FIGURES, rules.FIGURES)
            self._folded_rows = db.total_changes
            self._execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        super().close()
        self._lock.release()

    def _insert(self, record: JobRecord, workflow: bytes, form: bytes) -> None:
        if record.sequence <= self._last_sequence:
            raise self._refuse(rules.taken(record))
        try:
            self._execute(_INSERT_JOB, *to_row(record))
        except StoreError as e:
            if isinstance(e.__cause__, sqlite3.IntegrityError):
                raise rules.taken(record) from e
            raise
        self._execute("INSERT INTO payload VALUES (?, ?, ?)", record.sequence, workflow, form)
        for label in set(record.labels):
            self._execute("INSERT INTO label VALUES (?, ?)", label, record.sequence)
        self._refer(_REFER, rules.named(record), record.sequence)
        self._last_sequence = record.sequence
        self._live[record.job_id] = record
        self._counts[record.state] += 1

    def _update(self, record: JobRecord) -> None:
        old = self._known(record.job_id)
        if rules.submitted(old) != rules.submitted(record):
            raise self._refuse(rules.changed(record))
        stored = self._updated[record.job_id][0] if record.job_id in self._updated else old
        self._updated[record.job_id] = stored, record
        if record.state.terminal:
            self._live.pop(record.job_id, None)
        else:
            self._live[record.job_id] = record
        self._counts[old.state] -= 1
        self._counts[record.state] += 1

    def _flush(self) -> None:
        """Give the database what it does not have yet: before a commit, and before anything is read but a record."""
        updated, self._updated = list(self._updated.values()), {}
        told, self._told = self._told, []
        rows = [(new.state.value, life_of(new), new.finished_utc_ms, new.sequence) for _, new in updated]
        self._execute_many(_UPDATE_JOB, rows)
        for old, new in updated:
            if old.outputs != new.outputs:
                before, after = rules.named(old), rules.named(new)
                self._refer(_REFER, after - before, new.sequence)
                self._refer(_UNREFER, before - after, new.sequence)
        self._execute_many(_ADD_STORY, told)

    def _delete(self, job_id: str) -> None:
        self._flush()
        record = self._known(job_id)
        if not record.state.terminal:
            raise self._refuse(rules.live(record))
        for label in set(record.labels):
            self._execute("DELETE FROM label WHERE label = ? AND sequence = ?", label, record.sequence)
        self._execute("DELETE FROM search WHERE rowid = ?", record.sequence)
        self._refer(_UNREFER, rules.named(record), record.sequence)
        for table in ("story", "payload", "job"):
            self._execute(f"DELETE FROM {table} WHERE sequence = ?", record.sequence)
        values = (record.job_id, record.owner, record.idempotency_key)
        number = self._execute(_REMEMBER, *values)[0][0]
        self._execute("DELETE FROM deleted WHERE number <= ?", number - rules.DELETED_KEPT)
        self._live.pop(job_id, None)
        self._counts[record.state] -= 1

    def _refer(self, sql: str, files: frozenset[str], sequence: int) -> None:
        for sha256 in files:
            self._execute(sql, bytes.fromhex(sha256), sequence)

    def _known(self, job_id: str) -> JobRecord:
        record = self.job(job_id)
        if record is None:
            raise self._refuse(rules.unknown(job_id))
        return record

    # ---- reads

    def job(self, job_id: str) -> JobRecord | None:
        live = self._live.get(job_id)
        if live is not None:
            return live
        updated = self._updated.get(job_id)
        return updated[1] if updated is not None else self._one(f"{JOB} WHERE job_id = ?", job_id)

    def job_by_key(self, owner: str, idempotency_key: str) -> JobRecord | None:
        # The first comparison lets SQLite use the index, which leaves empty keys out.
        self._flush()
        where = "idempotency_key != '' AND owner = ? AND idempotency_key = ?"
        return self._one(f"{JOB} WHERE {where}", owner, idempotency_key)

    def job_in_group(self, group_id: str) -> JobRecord | None:
        rows = self._execute("SELECT job_id FROM job WHERE group_id = ? ORDER BY sequence LIMIT 1", group_id)
        return self.job(rows[0][0]) if rows else None

    def is_deleted(self, job_id: str) -> bool:
        return bool(self._execute("SELECT 1 FROM deleted WHERE job_id = ?", job_id))

    def deleted_by_key(self, owner: str, idempotency_key: str) -> str:
        where = "idempotency_key != '' AND owner = ? AND idempotency_key = ?"
        rows = self._execute(f"SELECT job_id FROM deleted WHERE {where}", owner, idempotency_key)
        return rows[0][0] if rows else ""

    def workflow(self, job_id: str) -> bytes:
        return self._payload("workflow", job_id)

    def form(self, job_id: str) -> bytes:
        return self._payload("form", job_id)

    def live(self) -> Iterator[JobRecord]:
        self._flush()
        # Numbers first, then some records at a time: a long queue is never in memory twice.
        states = ", ".join(f"'{state}'" for state in JobState if not state.terminal)
        rows = self._execute(f"SELECT sequence FROM job WHERE state IN ({states})")
        sequences = sorted([sequence for (sequence,) in rows])
        some = (sequences[begin : begin + AT_ONCE] for begin in range(0, len(sequences), AT_ONCE))
        return itertools.chain.from_iterable(map(self._records, some))

    def ended(self, *, before_utc_ms: int | None, limit: int) -> tuple[JobRecord, ...]:
        self._flush()
        rows = self._execute(_ENDED, before_utc_ms if before_utc_ms is not None else _LATEST, limit)
        return tuple(map(self._read, rows))

    def names(self, sha256: str) -> bool:
        self._flush()
        return bool(self._execute("SELECT 1 FROM reference WHERE sha256 = ? LIMIT 1", bytes.fromhex(sha256)))

    def story(self, job_id: str) -> tuple[StoryLine, ...]:
        self._flush()
        rows = self._execute(
            "SELECT utc_ms, what, attempt, worker, text, decision, burnt FROM story "
            "WHERE sequence = (SELECT sequence FROM job WHERE job_id = ?) ORDER BY line",
            job_id,
        )
        try:
            return tuple(map(story_line, rows))
        except (ValueError, TypeError, RemoteProtocolError) as e:
            raise self._refuse(damaged(self._path, f"the story of job {job_id} cannot be read: {e}")) from e

    def figures(self) -> Iterator[Figure]:
        rows = self._execute("SELECT kind, subject, worker, value, samples FROM figure ORDER BY rowid")
        return (Figure(*row) for row in rows)

    def counts(self) -> dict[JobState, int]:
        return {JobState(state): count for state, count in self._counts.items() if count}

    def notes(self) -> dict[str, str]:
        return dict(self._execute("SELECT key, value FROM note"))

    def last_sequence(self) -> int:
        return self._last_sequence

    def page(self, wanted: Wanted, *, after: str, limit: int) -> Page:
        self._flush()
        return super().page(wanted, after=after, limit=limit)

    def _payload(self, column: str, job_id: str) -> bytes:
        live = self._live.get(job_id)
        if live is not None:
            rows = self._execute(f"SELECT {column} FROM payload WHERE sequence = ?", live.sequence)
        else:
            rows = self._execute(f"SELECT {column} FROM payload JOIN job USING (sequence) WHERE job_id = ?", job_id)
        if not rows:
            raise KeyError(job_id)
        found: bytes = rows[0][0]
        return found
