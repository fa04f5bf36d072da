"""The queues of jobs that the fleet is held against: how each is started on this machine, and its client.

A queue's client takes workflows, hands each over as a job of its own, and returns once every result is there. Processes
of a queue stand still while another is measured.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from scripts.fleet import ROOT, Process

#: Name -> the distribution it comes with; the two of the ZeroMQ guide need none.
QUEUES: Final = {
    "Celery, Redis": "celery",
    "Celery, Redis fsync": "celery",
    "RQ, Redis": "rq",
    "Dramatiq, Redis": "dramatiq",
    "Huey, SQLite fsync": "huey",
    "zguide lbbroker": "",
    "zmq.proxy": "",
}
READY_S: Final = 60.0


def present() -> Iterator[str]:
    """The queues that can be measured here; those that cannot are named."""
    for name, distribution in QUEUES.items():
        if distribution and importlib.util.find_spec(distribution) is None:
            print(f"bench: without {name}: scripts/setup bench installs it")
        elif "Redis" in name and shutil.which("redis-server") is None:
            print(f"bench: without {name}: no redis-server here (apt-get install redis-server)")
        else:
            yield name


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("celery", "rq", "dramatiq", "huey") if importlib.util.find_spec(name)}
    if shutil.which("redis-server"):
        said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        found["Redis"] = next(word[2:] for word in said.split() if word.startswith("v="))
    return found


class Queue:
    """`with Queue("RQ, Redis", folder, workers) as queue: queue.run(workflows)`."""

    def __init__(self, name: str, folder: Path, workers: int) -> None:
        self.name = name
        self._folder = folder
        self._workers = workers
        self._processes: list[Process] = []
        self._run: Callable[[list[Any]], None]

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop, asked=False)
            self._start()
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop(asked=kind is None)

    def run(self, workflows: list[Any]) -> float:
        """The seconds from the first job that is handed over to the last result."""
        self._signal(signal.SIGCONT)
        began = time.perf_counter()
        self._run(workflows)
        took = time.perf_counter() - began
        self._signal(signal.SIGSTOP)
        return took

    def _start(self) -> None:
        many, celery = self._workers, ["-m", "celery", "-A", "scripts.rivals.celery_app", "worker", "-l", "error"]
        match self.name.split(",")[0]:
            case "Celery":
                url = self._redis(durable="fsync" in self.name)
                pool = ["solo"] if many == 1 else ["prefork", "--concurrency", str(many)]
                quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
                self._launch([*celery, *quiet, "--pool", *pool], BENCH_REDIS=url)
                self._run = _client("celery_app", url)
            case "RQ":
                url = self._redis()
                for _ in range(many):
                    self._launch(["-m", "rq.cli", "worker", "-q", "-w", "rq.SimpleWorker", "-u", url, "bench"])
                self._run = _client("rq_jobs", url)
            case "Dramatiq":
                url = self._redis()
                flags = ["--processes", str(min(many, 2)), "--threads", "8"]
                self._launch(["-m", "dramatiq", *flags, "scripts.rivals.dramatiq_actors"], BENCH_REDIS=url)
                self._run = _client("dramatiq_actors", url)
            case "Huey":
                path = str(self._folder / "huey.sqlite3")
                flags = ["-k", "thread", "-w", str(many), "-d", "0.002", "-m", "0.002", "-b", "1", "-C"]
                self._launch(
                    ["-m", "huey.bin.huey_consumer", "scripts.rivals.huey_tasks.huey", *flags], BENCH_SQLITE=path
                )
                self._run = _client("huey_tasks", path)
            case _:
                kind = "lbbroker" if "lbbroker" in self.name else "proxy"
                front, back = self._launch(["-m", "scripts.rivals.zguide", kind]).ready().split()[1:]
                self._launch(["-m", "scripts.rivals.zguide", "workers", back, kind, str(many)]).ready()
                self._run = _client("zguide", front)

    def _redis(self, *, durable: bool = False) -> str:
        """A server of its own: in memory alone, or with an fsync for each write."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        flags = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "", *log]
        self._launch(["redis-server", *flags], python=False)
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64).startswith(b"+PONG"):
                    return f"redis://127.0.0.1:{port}/0"
            time.sleep(0.02)
        raise SystemExit(f"bench: redis-server did not start: {self._processes[-1].tail()}")

    def _launch(self, command: Sequence[str], *, python: bool = True, **environ: str) -> Process:
        whole = [sys.executable, *command] if python else list(command)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ}
        name = f"{self.name.replace(' ', '-').lower()}-{len(self._processes)}"
        self._processes.append(Process(name, whole, self._folder, environment))
        return self._processes[-1]

    def _signal(self, number: int) -> None:
        """To each process and its children."""
        for process in self._processes:
            if process.running():
                os.killpg(process.child.pid, number)

    def _stop(self, *, asked: bool) -> None:
        """asked: they are told before they are killed."""
        self._signal(signal.SIGCONT)
        for number in (signal.SIGTERM, signal.SIGKILL) if asked else (signal.SIGKILL,):
            for process in reversed(self._processes):
                if process.running():
                    os.killpg(process.child.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.child.wait(3)
        for process in self._processes:
            process.wait()


def _client(module: str, where: str) -> Any:
    return importlib.import_module(f"scripts.rivals.{module}").client(where)
