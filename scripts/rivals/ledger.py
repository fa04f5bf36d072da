"""Where a rival keeps what it accepts: one SQLite file with the broker's own promise, on disk before the answer."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

#: What a rival takes; any other key is refused.
KEYS: Final = frozenset({"workflow", "title"})


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, workflow TEXT NOT NULL)")
    return connection
