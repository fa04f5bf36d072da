"""Searches for words, answered beside the broker's loop: a common beginning or a dear phrase takes SQLite some 100 ms.

A thread of its own with a connection that only reads, so that no heartbeat waits for it. It sees what is committed,
which is all that anybody was told. Whoever turns asks, polls `fileno` and takes what was found.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from broker.core.events import FromClient
from broker.protocol.errors import StoreError
from broker.reading import wanted_by
from broker.runtime import clock
from broker.store.api import Page
from broker.store.reader import SqliteReader

#: Whoever asked so long ago has given up and is not answered.
STALE_MS: Final = 10_000


class Searches:
    def __init__(self, path: Path) -> None:
        """path: of the database, open and of this release's shape."""
        self._path = path
        self._asked: SimpleQueue[tuple[FromClient, int] | None] = SimpleQueue()
        #: A page; None where the request's key leads nowhere; why the database cannot be read any more.
        self._found: SimpleQueue[tuple[FromClient, Page | StoreError | None]] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="searches", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread serves; false after an error that it could not answer (the log tells which)."""
        return self._thread.is_alive()

    def ask(self, request: FromClient) -> None:
        """Have a List answered, in its turn."""
        self._asked.put((request, clock.now().monotonic_ms))

    def fileno(self) -> int:
        """Readable while something was found."""
        return self._wake

    def take(self) -> Iterator[tuple[FromClient, Page | None]]:
        """What was found since the last call. Raises StoreError when the database failed: the broker must stop."""
        os.eventfd_read(self._wake)
        while True:
            try:
                request, found = self._found.get_nowait()
            except Empty:
                return
            if isinstance(found, StoreError):
                raise found
            yield request, found

    def close(self) -> None:
        """Finish the search under way, leave the others. Call it once."""
        self._asked.put(None)
        self._thread.join()
        os.close(self._wake)

    # ---- everything below runs in the thread

    def _serve(self) -> None:
        reader: SqliteReader | None = None
        while (asked := self._asked.get()) is not None:
            request, asked_ms = asked
            if clock.now().monotonic_ms - asked_ms > STALE_MS:
                continue
            said = request.message
            found: Page | StoreError | None
            try:
                reader = SqliteReader(self._path) if reader is None else reader
                found = reader.snapshot_page(wanted_by(said), after=said.after, limit=said.limit)
            except ValueError:
                found = None
            except StoreError as e:
                found = e
            self._found.put((request, found))
            os.eventfd_write(self._wake, 1)
        if reader is not None:
            reader.close()
