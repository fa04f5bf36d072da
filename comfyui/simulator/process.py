"""Starts simulators as processes of their own, for tests, the demo and benches.

Stdlib only: whoever starts a simulator need not have what it is built on. Each SimulatorProcess owns its process and
ends it; nothing outlives the `with` block.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: How long a process may take to say that it is ready, and to be gone after it was told to.
PATIENCE_S = 30.0


class SimulatorProcess:
    """One simulator. It keeps its port and its files when it is started anew."""

    def __init__(self, base: Path, options: dict[str, Any]) -> None:
        self._base = base
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        #: 0 until it has run once; then the same for ever.
        self.port = 0

    def start(self) -> None:
        """Returns when it takes connections. Raises RuntimeError if it does not come up."""
        command = [sys.executable, "-m", "comfyui.simulator", *flags({"base_directory": self._base} | self._options)]
        command += [] if "port" in self._options and not self.port else ["--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready http://"):
            raise RuntimeError(f"the simulator did not start (exit status {self._process.wait()}): {' '.join(command)}")
        self.port = int(line.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def base(self) -> Path:
        """Its base directory: input, output, temp, user, models."""
        return self._base

    def signal(self, number: int) -> None:
        """SIGKILL, SIGSTOP, SIGCONT and the like."""
        os.kill(self._running().pid, number)

    def wait(self) -> int:
        """Its exit status, negative for a signal. Raises subprocess.TimeoutExpired if it does not end."""
        process = self._running()
        status = process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()
        return status

    def kill(self) -> None:
        """As by kill -9: nothing is said to anybody."""
        self.signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        """A new process on the same port with the same files; the old one must be gone."""
        self.start()

    def stop(self) -> None:
        """Ends it if it runs, also when it is stopped by SIGSTOP or hangs."""
        if self._process is None or self._process.poll() is not None:
            if self._process is not None and self._process.stdout is not None:
                self._process.stdout.close()
            return
        self.kill()

    def mischief(self, kind: str, **options: Any) -> None:
        """Orders a fault; see mischief.KINDS."""
        request = urllib.request.Request(
            f"{self.url}/simulator/mischief",
            data=json.dumps({"kind": kind, **options}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            response.read()

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise RuntimeError("the simulator was not started")
        return self._process


def flags(options: dict[str, Any]) -> list[str]:
    """Command-line flags from keyword options: zero_work=True → --zero-work, mischief=[{…}] → one flag each."""
    result = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            result.append(flag)
        elif name == "mischief":
            result += [part for wish in value for part in (flag, json.dumps(wish))]
        elif value is not None and value is not False:
            result += [flag, str(value)]
    return result


@contextmanager
def running_simulator(**options: Any) -> Iterator[SimulatorProcess]:
    """A simulator for the length of a `with` block, on a port the kernel chose, in a folder that is removed after.

    Options are the command line's, with underscores: running_simulator(zero_work=True, version="0.3.34").
    """
    with tempfile.TemporaryDirectory(prefix="simulator-", ignore_cleanup_errors=True) as folder:
        process = SimulatorProcess(Path(options.pop("base_directory", folder)), options)
        try:
            process.start()
            yield process
        finally:
            process.stop()
