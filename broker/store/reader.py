"""Jobs read out of the SQLite file, one by one and in pages: what the store does with the connection that it writes by,
and what a search may do beside it, by one of its own that only reads.

One thread uses it. It fails for good: after the first error it is closed.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from broker.core.model import JobRecord
from broker.protocol.errors import RemoteProtocolError, StoreError
from broker.store import pages, rules
from broker.store.api import Page, Wanted
from broker.store.failure import damaged, translate
from broker.store.rows import COLUMNS, from_row

#: How long another program (a backup, a shell) may hold the database before that is a failure. The core has already
#: moved on when a write is refused, so waiting is all there is; it lengthens every lease by what it lost.
BUSY_S: Final = 60.0

JOB: Final = f"SELECT {', '.join(COLUMNS)} FROM job"


class SqliteReader:
    def __init__(self, path: Path) -> None:
        """Open a database that a broker of this release has opened before. Raises StoreError."""
        self._path = path
        self._db: sqlite3.Connection | None = None
        try:
            self._db = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None
            )
            self._db.execute("PRAGMA trusted_schema = OFF")
        except sqlite3.Error as e:
            raise self._fail(e, "opening") from e

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):  # what was committed is safe in the log, whatever the close says
                db.close()

    def snapshot_page(self, wanted: Wanted, *, after: str, limit: int) -> Page:
        """A page of what is committed now, whatever is written meanwhile."""
        self._execute("BEGIN")
        try:
            return self.page(wanted, after=after, limit=limit)
        finally:
            if self._db is not None:
                self._execute("COMMIT")

    def last_sequence(self) -> int:
        return max([n for (n,) in self._execute("SELECT seq FROM sqlite_sequence")], default=0)

    def page(self, wanted: Wanted, *, after: str, limit: int) -> Page:
        before, first = rules.before(after, self.last_sequence()), 1
        if wanted.since_utc_ms is not None:
            first = self._first_since(wanted.since_utc_ms)
        if wanted.until_utc_ms is not None:
            before = min(before, self._first_since(wanted.until_utc_ms))
        rows = (self._rows(sql, *values) for sql, values in pages.statements(wanted, first, before))
        found: list[int] = []
        for looked_at, (sequence, fits) in enumerate(heapq.merge(*rows, reverse=True), 1):
            if fits:
                found.append(sequence)
            if len(found) > limit or looked_at == pages.LOOKED_AT:
                shown = found[:limit]
                after = str(shown[-1] if len(found) > limit else sequence)
                return Page(tuple(map(self._record, shown)), after)
        return Page(tuple(map(self._record, found)), "")

    def _first_since(self, utc_ms: int) -> int:
        """The first sequence whose job, and every later one, was submitted at that time or later."""
        older, first = 0, self.last_sequence() + 1
        while first - older > 1:
            middle = (older + first) // 2
            where = "WHERE sequence >= ? ORDER BY sequence LIMIT 1"
            rows = self._execute(f"SELECT sequence, created_utc_ms FROM job {where}", middle)
            if rows and rows[0][0] < first and rows[0][1] < utc_ms:
                older = rows[0][0]
            else:
                first = middle
        return first

    def _record(self, sequence: int) -> JobRecord:
        return self._records([sequence])[0]

    def _records(self, sequences: Sequence[int]) -> list[JobRecord]:
        """Of rising sequences, in their order."""
        numbers = json.dumps(sequences)
        rows = self._execute(f"{JOB} WHERE sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence", numbers)
        if len(rows) != len(sequences):
            missing = min(set(sequences) - {row[0] for row in rows})
            raise self._refuse(damaged(self._path, f"an index names job number {missing}, which is not there"))
        return list(map(self._read, rows))

    def _one(self, sql: str, *values: Any) -> JobRecord | None:
        rows = self._execute(sql, *values)
        return self._read(rows[0]) if rows else None

    def _read(self, row: Any) -> JobRecord:
        try:
            return from_row(row)
        except (ValueError, TypeError, KeyError, RemoteProtocolError) as e:
            raise self._refuse(damaged(self._path, f"the record of job {row[1]} cannot be read: {e}")) from e

    @property
    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError("the store is closed")
        return self._db

    def _execute(self, sql: str, *values: Any) -> list[Any]:
        db = self._open
        try:
            return db.execute(sql, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeError) as e:
            raise self._fail(e, sql.split(maxsplit=1)[0]) from e

    def _execute_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        try:
            self._open.executemany(sql, rows)
        except (sqlite3.Error, OverflowError, UnicodeError) as e:
            raise self._fail(e, sql.split(maxsplit=1)[0]) from e

    def _rows(self, sql: str, *values: Any) -> Iterator[Any]:
        """The rows one by one, as far as somebody goes on asking."""
        try:
            with contextlib.closing(self._open.execute(sql, values)) as cursor:
                yield from cursor
        except (sqlite3.Error, OverflowError, UnicodeError) as e:
            raise self._fail(e, sql.split(maxsplit=1)[0]) from e

    def _fail(self, error: Exception, doing: str) -> StoreError:
        return self._refuse(translate(error, self._path, doing))

    def _refuse(self, error: StoreError) -> StoreError:
        self.close()
        return error
