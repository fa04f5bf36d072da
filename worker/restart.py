"""Starts ComfyUI anew with the operator's command, a child process of this worker's.

An errand: the loop looks in on it and never waits. What the command writes is shown when it fails.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import time
from typing import Final

from worker.errands import Errand

LOOK_MS: Final = 200
#: The command only has to order the restart, not to wait until ComfyUI is up.
LIMIT_S: Final = 120.0

log = logging.getLogger(__name__)


def restarting(command: tuple[str, ...], why: str) -> Errand:
    """Run the command to its end."""
    log.warning("starting comfyui anew", extra={"fields": {"why": why, "command": command[0]}})
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as e:
            log.error("the restart command cannot be run", extra={"fields": {"fault": str(e)}})
            return
        end_s = time.monotonic() + LIMIT_S
        while child.poll() is None:
            if time.monotonic() > end_s:
                os.killpg(child.pid, signal.SIGKILL)
            yield LOOK_MS
        if child.returncode:
            output.seek(0)
            said = output.read(2_000).decode(errors="replace")
            log.error("the restart command failed", extra={"fields": {"status": child.returncode, "said": said}})
