"""How much room the disk has left: when the broker takes no more in, and a ballast that is dropped in need.

Three levels, each below the last: no new jobs, no new work and no files, and the ballast, which goes so that the end of
what runs can still be recorded. What else writes to this disk is not asked: so it is looked at, not reckoned with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Final

from broker.store.disk import sync_folder

#: Shares of the least room: what files leave for the database, and the ballast beside it.
FILES_SHARE: Final = 8
BALLAST_SHARE: Final = 16
LOOK_S: Final = 1.0

log = logging.getLogger(__name__)


class Room:
    def __init__(self, folder: Path, least_bytes: int) -> None:
        """least_bytes: with less room than this on the folder's disk nothing more is taken in."""
        self._folder = folder
        self._ballast = folder / "ballast"
        self._least_bytes = least_bytes
        self._ballast_bytes = least_bytes // BALLAST_SHARE
        self._full = False
        self._looked_s = -LOOK_S
        self.is_full()

    def is_full(self) -> bool:
        """Whether to take nothing more in. Looks once a second."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        return self._full

    def _look(self) -> None:
        found = os.statvfs(self._folder)
        free_bytes = found.f_bavail * found.f_frsize
        # Some more than the least before it counts as free again, or each job that ends would let another one in.
        full = free_bytes < (self._least_bytes * 5 // 4 if self._full else self._least_bytes)
        if found.f_files and not found.f_favail:
            full = True
        if full != self._full:
            self._full = full
            told = {"folder": str(self._folder), "free_bytes": free_bytes, "least_bytes": self._least_bytes}
            if full:
                log.error("the disk is almost full: nothing is taken in or begun", extra={"fields": told})
            else:
                log.info("the disk has room again", extra={"fields": told})
        if free_bytes < self._ballast_bytes // 2 and self._ballast.exists():
            log.error("the disk is full: the ballast goes, so that what runs can be recorded")
            with contextlib.suppress(OSError):
                self._ballast.unlink()
        elif not full and not self._ballast.exists():
            self._lay()

    def _lay(self) -> None:
        """Allocate the ballast: blocks that are really there, not a hole."""
        with contextlib.suppress(OSError):
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(1, self._ballast_bytes))
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self._folder)
