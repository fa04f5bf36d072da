"""What a simulator did, as JSON lines: the ground truth that a fault campaign compares a fleet's claims with.

Each line goes out in one write before the thing it speaks of is visible to anybody, so it survives a kill of the
process. It is no debug log and is read by nothing in the simulator itself.
"""

import json
import os
import time
from pathlib import Path
from typing import Any


class Journal:
    """Appends to one file; without a file it does nothing. Owns its file descriptor."""

    def __init__(self, file: Path | None) -> None:
        self._fd = None if file is None else os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(self, event: str, **facts: Any) -> None:
        """One line: `at` (name of the event), both clocks in ms, the process id, then the facts."""
        if self._fd is not None:
            clocks = {"mono_ms": time.monotonic_ns() / 1e6, "wall_ms": time.time_ns() // 1_000_000}
            line = json.dumps({"at": event, **clocks, "pid": os.getpid(), **facts})
            os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read_journal(file: Path) -> list[dict[str, Any]]:
    """The lines of a journal, oldest first; a last line cut short by a kill is left out."""
    entries = []
    for line in file.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            entries.append(json.loads(line))
    return entries
