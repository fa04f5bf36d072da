"""A whole fleet on this machine: broker, web, workers and, where no ComfyUI is given, simulators, as child processes.

For the demo, the tests and the measuring scripts. Ports are chosen by the kernel and learnt from the ready lines. Owns
its children: whatever happens, leaving the context ends every one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scripts.orphans import Child

ROOT = Path(__file__).resolve().parents[1]
#: Generous: a cold machine starts eight Pythons at once, and a broker reads all of its database first.
READY_S = 240.0
STOP_S = 15.0


class FleetFailed(Exception):
    """A process did not come up, or ended by itself; the text holds the end of what it said."""


class Process:
    """One child and its log file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.child = Child(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, env=environ, cwd=ROOT
            )

    def ready(self) -> str:
        """Its ready line. Raises FleetFailed when it ends first, or says nothing for too long."""
        assert self.child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            if selector.select(READY_S):
                line = self.child.stdout.readline()
                if line.startswith("ready"):
                    return line.strip()
                if not line:  # it ends, and whoever asks next whether it runs is to hear that it does not
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.child.wait(STOP_S)
        raise FleetFailed(f"{self.name} did not start: {self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1_500:].strip()

    def fate(self) -> str:
        """How it ended, where its log is, and the end of that."""
        code = self.child.returncode
        how = f"exit status {code}" if code >= 0 else f"killed by signal {-code}, {signal.strsignal(-code)}"
        return f"{self.name} ended by itself ({how}; its log: {self.log}) {self.tail()}".rstrip()

    def running(self) -> bool:
        return self.child.poll() is None

    def signal(self, number: int) -> None:
        if self.running():
            self.child.send_signal(number)

    def wait(self) -> int:
        code = self.child.wait(STOP_S)
        if self.child.stdout is not None:
            self.child.stdout.close()
        return code

    def kill(self) -> None:
        """End it at once, stopped or not."""
        self.signal(signal.SIGKILL)
        self.wait()


class Fleet:
    """Starts on entering: `with Fleet(folder, workers=2) as fleet: … fleet.url`."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        comfyuis: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        simulator: Sequence[str] = (),
        cards: Sequence[Sequence[str]] = (),
        web: bool = True,
        broker: Sequence[str] = ("broker",),
    ) -> None:
        """comfyuis: one worker each; none: `workers` simulators, started with the flags `simulator`.

        cards: flags of each simulator besides, and so how many there are.
        settings: section.key -> text, for every process. broker: the module that is run as it, and its first arguments.
        """
        self.folder = folder
        self.comfyuis = list(comfyuis)
        self.simulated = not comfyuis
        self.url = ""
        self.processes: dict[str, Process] = {}
        self._workers = len(comfyuis or cards) if comfyuis or cards else workers
        self._simulator = list(simulator)
        self._cards = cards
        self._with_web = web
        self._broker = tuple(broker)
        self._settings = {
            "broker.data": str(folder / "data"),
            "web.templates": str(folder / "templates"),
            **{f"network.{name}": "tcp://127.0.0.1:*" for name in ("clients", "workers", "events", "files")},
            **(settings or {}),
        }
        self._simulator_ports: dict[int, str] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for index in range(1, self._workers + 1) if self.simulated else ():
                self.start_simulator(index)
            self.start_broker()
            if self._with_web:
                self.start_web()
            for index in range(1, self._workers + 1):
                self.start_worker(index)
            if self._with_web and self._workers:
                self.await_abilities()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        """Ctrl-C is how one leaves a fleet that one looks at; anything else that went wrong does not wait for it."""
        if kind in (None, KeyboardInterrupt):
            self.stop()
        else:
            self.end()

    @property
    def database(self) -> Path:
        """The broker's; read it, and leave writing to the broker."""
        return self.folder / "data" / "fleet.sqlite3"

    def endpoint(self, name: str) -> str:
        """Where the broker's socket `name` (clients, workers, events, files) listens."""
        return self._settings[f"network.{name}"]

    def start_simulator(self, index: int) -> None:
        """Start simulator `index`, on the port it had before if it ran already."""
        port = self._simulator_ports.get(index, "0")
        own = self._cards[index - 1] if self._cards else ()
        flags = ["--port", port, "--log", str(self.folder / f"simulator-{index}.jsonl"), *self._simulator, *own]
        line = self._start(f"simulator-{index}", "comfyui.simulator", flags)
        url = line.split()[1]
        self._simulator_ports[index] = url.rsplit(":", 1)[1]
        self.comfyuis[index - 1 : index] = [url]

    def start_broker(self) -> None:
        module, *first = self._broker
        line = self._start("broker", module, [*first, *self._flags()])
        for word in line.split()[2:]:
            name, _, endpoint = word.partition("=")
            self._settings[f"network.{name}"] = endpoint

    def start_web(self, port: str = "*") -> None:
        """Where it listened before, if it did; else at this port."""
        settings = {} if "web.port" in self._settings else {"web.port": port}
        line = self._start("web", "web", self._flags(settings))
        self.url = next(word for word in line.split() if "http://" in word).partition("url=")[2] or line.split()[-1]
        self._settings["web.port"] = self.url.rsplit(":", 1)[1].strip("/")

    def start_worker(self, index: int, settings: Mapping[str, str] | None = None) -> None:
        """settings: its own, beside those of all."""
        self.launch_worker(index, settings)
        self.processes[f"worker-{index}"].ready()

    def launch_worker(self, index: int, settings: Mapping[str, str] | None = None) -> None:
        """Start a worker without waiting for it."""
        flags = ["--name", f"worker-{index}", "--comfyui", self.comfyuis[index - 1], *self._flags(settings)]
        self.launch(f"worker-{index}", "worker", flags)

    def restart_worker(self, index: int, settings: Mapping[str, str]) -> None:
        """Let it go, and start it with settings of its own."""
        self.processes[f"worker-{index}"].signal(signal.SIGTERM)
        self.processes[f"worker-{index}"].wait()
        self.start_worker(index, settings)

    def start_crew(self, workers: int, *, first: int = 1) -> None:
        """Start workers without a ComfyUI, all in one process (scripts/crew.py)."""
        flags = ["--endpoint", self.endpoint("workers"), "--workers", str(workers), "--first", str(first)]
        self._start(f"worker-crew-{first}", "scripts.crew", flags)

    def stop(self) -> None:
        """End every process: workers first, so that they hand back what they hold. Who still works when the broker is
        gone is told once more, which ends it at once: nobody would hear of its result."""
        order = sorted(
            self.processes, key=lambda name: ("worker", "web", "broker", "simulator").index(name.split("-")[0])
        )
        for name in order:
            self.processes[name].signal(signal.SIGCONT)
            self.processes[name].signal(signal.SIGTERM)
            if not name.startswith("worker"):
                self._ended(name)
        for name in order:
            self.processes[name].signal(signal.SIGTERM)
            self._ended(name)

    def end(self) -> None:
        """End every process at once, whatever it does."""
        for name, process in self.processes.items():
            if name.startswith("simulator"):  # dies of SIGTERM as fast, and takes its folder with it
                process.signal(signal.SIGCONT)
                process.signal(signal.SIGTERM)
            else:
                process.child.kill_all()
        for name in self.processes:
            self._ended(name)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One JSON call of the API. Raises urllib.error.HTTPError for anything but 2xx."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        request.method = method
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def wait(self, job_id: str, *, within_s: float = 60.0) -> Any:
        """The job, once it is over. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            job = self.request("GET", f"/api/v1/jobs/{job_id}")
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job
            time.sleep(0.05)
        raise TimeoutError(f"job {job_id} is still {job['state']} after {within_s:g} s")

    def await_abilities(self) -> None:
        """Wait until the web knows what the workers can do: from then on it finds faults before a job is queued."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            template = self.request("GET", "/api/v1/templates/text-to-image")
            # A ComfyUI without a model has told, too.
            if template["why_not"] or all(field["choices"] for field in template["fields"] if field["type"] == "model"):
                return
            time.sleep(0.05)
        raise FleetFailed(f"the workers did not tell what they can do: {self.processes['worker-1'].tail()}")

    def _ended(self, name: str) -> None:
        process = self.processes[name]
        try:
            process.wait()
        except subprocess.TimeoutExpired:
            process.kill()

    def _start(self, name: str, module: str, flags: Sequence[str]) -> str:
        self.launch(name, module, flags)
        return self.processes[name].ready()

    def launch(self, name: str, module: str, flags: Sequence[str]) -> None:
        """Start a module as a process of the fleet, of the kind that its name begins with."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.processes[name] = Process(name, [sys.executable, "-m", module, *flags], self.folder, environ)

    def _flags(self, more: Mapping[str, str] | None = None) -> list[str]:
        settings = {**self._settings, **(more or {})}
        return [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]


def answers(url: str) -> bool:
    """Whether a ComfyUI answers there."""
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/system_stats", timeout=2) as answer:
        return "system" in json.loads(answer.read())
    return False
