"""One broker for one set of data: a lock on a file beside the database, held for as long as the process lives.

The kernel drops it with the process, however that dies. The file itself stays: removing it would let two brokers hold
"the" lock on two different files.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from broker.protocol.errors import StoreError


class DataLock:
    def __init__(self, path: Path) -> None:
        """Take the lock. Raises StoreError at once, naming the holder, when another process has it."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise StoreError(f"{path}: cannot open the lock file: {e.strerror}. Check the folder and its rights") from e
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"pid {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        except BlockingIOError as e:
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise StoreError(f"another broker ({holder}) already uses the data in {path.parent}: stop it first") from e
        except OSError as e:
            os.close(self._fd)
            raise StoreError(f"{path}: cannot lock it: {e.strerror}. Keep the data on a local disk") from e

    def release(self) -> None:
        """Let another broker in. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
