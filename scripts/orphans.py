"""Children and temporary files that do not outlive the script that made them, however it goes: by its end, a signal,
or kill -9.

A small process of its own is told of them, and reads on until the script is gone: `python scripts/orphans.py`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

#: What ends a script from outside.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How often a folder is removed at most, and the wait in between: who was killed may still have made a file there.
TRIES, AGAIN_S = 100, 0.1


class Child(subprocess.Popen[str]):
    """A process with a group of its own, which is killed if it is still there when the script is not."""

    def __init__(self, command: Sequence[str], **how: Any) -> None:
        super().__init__(command, start_new_session=True, text=True, **how)
        _tell(f"+{self.pid}")

    def wait(self, timeout: float | None = None) -> int:
        code = super().wait(timeout)
        _tell(f"-{self.pid}")
        return code

    def kill_all(self) -> None:
        """End the whole group at once, stopped or not."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


def gather_temporary(name: str) -> None:
    """From now on whatever is temporary, the script's and its children's, lies in one folder, which goes with it."""
    folder = tempfile.mkdtemp(prefix=f"comfyfleet-{name}-")
    _tell(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def end_by_signals() -> None:
    """A signal ends the script as an exception does: what is open is closed, and children with it. Further ones are
    not heard."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _tell(line: str) -> None:
    told = _heir().stdin
    assert told is not None
    told.write(f"{line}\n")
    told.flush()


@functools.cache
def _heir() -> subprocess.Popen[str]:
    """The process that stays."""
    command = [sys.executable, "-S", __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)


def main() -> None:
    left: set[int] = set()
    folders = []
    for line in sys.stdin:
        if line[0] == "/":
            folders.append(line.removesuffix("\n"))
        else:
            (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for group in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(AGAIN_S)


if __name__ == "__main__":
    main()
