"""What a failed call to SQLite means, in words for the operator: the disk is full, it failed, or the file is damaged.

Only translates; the store that called it closes itself. After any of these nothing may be acknowledged any more.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from broker.protocol.errors import StoreError


class StoreFull(StoreError):
    """The disk that holds the store has no room left: free some, then start again; nothing recorded is lost."""


_WAY_BACK = """Nothing was changed or deleted. Keep a copy of the folder {folder} as it is, then either restore \
your last backup of {name} (and move {name}-wal and {name}-shm away), or save what can still be read:
  sqlite3 {name} .recover | sqlite3 mended.db
and put mended.db in the place of {name}."""


def damaged(path: Path, finding: str) -> StoreError:
    return StoreError(f"{path} is damaged: {finding}. " + _WAY_BACK.format(folder=path.parent, name=path.name))


def translate(error: Exception, path: Path, doing: str) -> StoreError:
    """The StoreError for an exception that `doing` raised. Source: sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    detail = f"{name}: {error}"
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"{path}: the disk is full ({doing}; {detail}). Free some space and start again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, f"{error} ({doing})")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(f"{path}: another program keeps it locked ({doing}; {detail}). Close that program")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreError(f"{path}: the disk failed or refuses ({doing}; {detail}). Check the disk and its rights")
    return StoreError(f"{path}: {doing} failed ({detail})")
