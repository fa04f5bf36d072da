"""What a worker process is tested against: a broker that says exactly what a test wants, and the worker itself.

The stand-in keeps no job and decides nothing: it answers announces and heartbeats, and records ends unless told not to.
It lives in the test's thread and works only inside `until`; the file channel is the real one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import zmq

from broker.files import FileChannel
from broker.protocol.codec import WORKER_SENDS, decode, encode
from broker.protocol.errors import ConfigError
from broker.protocol.records import InputFile, Limits, Resume
from broker.protocol.worker import (
    Announce,
    Beat,
    Complete,
    Dispatch,
    Fail,
    Heartbeat,
    ProgressReport,
    Ready,
    Recorded,
    Welcome,
)
from broker.runtime import sockets
from broker.runtime.settings import Files, Network
from broker.store.files import FileStore
from comfyui.simulator.journal import read_journal
from comfyui.simulator.process import SimulatorProcess

ROOT = Path(__file__).resolve().parents[3]
#: A bound on liveness, never a measure.
PATIENCE_S = 90.0
#: The longest wait for a message before whoever waits looks around.
TICK_S = 0.05
#: How long a result waits for its files.
FILES_S = 5.0
SDXL: dict[str, Any] = json.loads((ROOT / "comfyui" / "api.json").read_bytes())
LIMITS = Limits(start_to_close_ms=60_000, stall_ms=20_000, hung_ms=0)

M = TypeVar("M")
Key = tuple[str, int]


def sdxl(text: str, *, steps: int = 4, size: int = 256) -> dict[str, Any]:
    """Text to image."""
    graph: dict[str, Any] = json.loads(json.dumps(SDXL))
    graph["6"]["inputs"]["text"] = text
    graph["3"]["inputs"]["steps"] = steps
    graph["5"]["inputs"] |= {"width": size, "height": size}
    return graph


def plain(colour: int, *, size: int = 64) -> dict[str, Any]:
    """A picture without any model; another colour is another prompt."""
    image = {"width": size, "height": size, "batch_size": 1, "color": colour}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}},
    }


class BrokerStandIn:
    """A broker, as far as a worker can tell. After `restart` it is another process life on the same ports."""

    def __init__(self, folder: Path) -> None:
        any_port = "tcp://127.0.0.1:*"
        self.network = Network(workers=any_port, files=any_port)
        self.store = FileStore(folder, reserve_bytes=0)
        self.heartbeat_ms, self.lease_ms = 200, 2_000
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open()

    def _open(self) -> None:
        self.life = secrets.token_hex(16)
        #: Whether ends are confirmed, and whether anything is answered at all.
        self.records = True
        self.deaf = False
        self.resume: tuple[Resume, ...] = ()
        #: Everything heard, in order, and who said it.
        self.heard: list[Any] = []
        self.speakers: list[str] = []
        #: How long this end had listened for each heartbeat. What a busy machine keeps from it does not count.
        self.silences_s: list[float] = []
        self._silence_s = 0.0
        self.session = ""
        #: The serial of the newest dispatch, and of those sent to the session there is.
        self.dispatched = 0
        self._sent: list[int] = []
        self._ready: Ready | None = None
        self._socket = self._bound("workers")
        self._channel = FileChannel(self._bound("files"), self.store, Files())
        self._channel.start()
        self.network = Network(workers=sockets.endpoint_of(self._socket), files=self._channel.endpoint)

    def _bound(self, name: str) -> zmq.Socket[bytes]:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return sockets.router(self._context, name, self.network, None)
            except ConfigError:  # the port of the life before is let go a moment after its socket
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.005)

    def _close(self) -> None:
        self._channel.stop()
        self._socket.close(linger=0)

    def close(self) -> None:
        self._close()
        self._context.term()

    def restart(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """All is forgotten but what is in the store. meanwhile: done while there is no broker."""
        self._close()
        try:
            meanwhile()
        finally:
            self._open()

    # ---- listening

    def until(self, condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Answer the worker until the condition holds. Raises TimeoutError."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"still waiting; heard last: {self.heard[-5:]}")
            self._listen(TICK_S)

    def all(self, kind: type[M], key: Key | None = None) -> list[M]:
        """What was heard of this kind, about this attempt if one is given."""
        return [m for m in self.heard if isinstance(m, kind) and (key is None or about(m) == key)]

    def first(self, kind: type[M], key: Key | None = None, within_s: float = PATIENCE_S) -> M:
        """The first message of this kind, once it has come."""
        self.until(lambda: bool(self.all(kind, key)), within_s)
        return self.all(kind, key)[0]

    def next(self, kind: type[M], key: Key | None = None, within_s: float = PATIENCE_S) -> M:
        """The first message of this kind from now on."""
        before = len(self.all(kind, key))
        self.until(lambda: len(self.all(kind, key)) > before, within_s)
        return self.all(kind, key)[before]

    def end(self, key: Key, within_s: float = PATIENCE_S) -> Complete | Fail:
        """How the attempt ended, once it has."""
        self.until(lambda: self.ended(key), within_s)
        ends: list[Complete | Fail] = [*self.all(Complete, key), *self.all(Fail, key)]
        return ends[0]

    def ended(self, key: Key) -> bool:
        return bool(self.all(Complete, key) or self.all(Fail, key))

    def _listen(self, tick_s: float) -> None:
        began_s = time.monotonic()
        said = self._socket.poll(int(tick_s * 1_000))
        self._silence_s += min(time.monotonic() - began_s, tick_s)
        if said:
            self._take()

    def _take(self) -> None:
        sender, *frames = self._socket.recv_multipart()
        # Whatever a worker says keeps to the contract: this raises if it does not.
        message = decode(frames, WORKER_SENDS)
        if isinstance(message, Complete):
            self._await_files(message)
        self.heard.append(message)
        self.speakers.append(sender.decode())
        if self.deaf:
            return
        match message:
            case Announce():
                self.session = message.session
                self._silence_s = 0.0
                self._sent.clear()
                self._ready = None
                self.say(
                    Welcome(
                        broker=self.life,
                        heartbeat_ms=self.heartbeat_ms,
                        lease_ms=self.lease_ms,
                        need_capabilities=True,
                        resume=self.resume,
                    )
                )
            case Ready():
                self._ready = message
            case Heartbeat():
                self.silences_s.append(self._silence_s)
                self._silence_s = 0.0
                self.say(Beat(need_capabilities=False, ready=self._ready.serial if self._ready is not None else 0))
            case Complete() | Fail() if self.records:
                self.say(Recorded(job_id=message.job_id, attempt=message.attempt))

    def _await_files(self, said: Complete) -> None:
        """As the broker does: what has left beside a result may come a moment after it."""
        deadline_s = time.monotonic() + FILES_S
        while not all(self.store.has(output.sha256) for output in said.outputs) and time.monotonic() < deadline_s:
            self._listen(0.002)

    # ---- speaking

    def say(self, message: Any) -> None:
        with contextlib.suppress(zmq.ZMQError):  # a worker that is gone
            self._socket.send_multipart([self.session.encode(), *encode(message)], zmq.NOBLOCK)

    def room(self) -> int:
        """What the worker offered last, less what it has not seen."""
        ready = self._ready
        return ready.credits - sum(1 for serial in self._sent if serial > ready.seen) if ready is not None else 0

    def dispatch(
        self,
        workflow: dict[str, Any],
        *,
        job_id: str | None = None,
        attempt: int = 1,
        files: tuple[InputFile, ...] = (),
        limits: Limits = LIMITS,
    ) -> Key:
        """Send an attempt as soon as there is room for it."""
        self.until(lambda: self.room() > 0)
        key = job_id if job_id is not None else str(uuid.uuid4()), attempt
        self.send(key, workflow, files, limits)
        return key

    def send(
        self, key: Key, workflow: dict[str, Any], files: tuple[InputFile, ...] = (), limits: Limits = LIMITS
    ) -> None:
        """Send an attempt whether or not there is room for it."""
        self.dispatched += 1
        self._sent.append(self.dispatched)
        said = Dispatch(
            job_id=key[0],
            attempt=key[1],
            serial=self.dispatched,
            files=files,
            limits=limits,
            workflow=json.dumps(workflow).encode(),
        )
        self.say(said)

    def stored(self, sha256: str) -> bytes:
        size_bytes = self.store.size(sha256)
        assert size_bytes is not None
        return self.store.read(sha256, 0, size_bytes)


def about(message: Any) -> Key | None:
    job_id = getattr(message, "job_id", None)
    return (job_id, message.attempt) if job_id is not None else None


def input_file(broker: BrokerStandIn, name: str, data: bytes) -> InputFile:
    """A file in the broker's store, as a workflow calls it."""
    sha256 = hashlib.sha256(data).hexdigest()
    with contextlib.closing(broker.store.begin(sha256, len(data))) as partial:
        partial.write(data)
        partial.finish()
    return InputFile(name=name, sha256=sha256, size_bytes=len(data))


class SimulatedComfyUI:
    """A simulator that outlives the tests, and what it did since this one began."""

    def __init__(self, process: SimulatorProcess, log: Path) -> None:
        self.process = process
        self._log = log
        self._before = 0

    @property
    def url(self) -> str:
        return self.process.url

    def begin(self) -> None:
        self._before = len(read_journal(self._log))

    def lift(self) -> None:
        """No more mischief."""
        request = urllib.request.Request(f"{self.url}/simulator/mischief", method="DELETE")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            answer.read()

    def mischief(self, kind: str, **options: Any) -> None:
        self.process.mischief(kind, **options)

    def started(self) -> list[str]:
        """The prompts it really began to run, in order, by its own journal."""
        return self._noted("started")

    def finished(self) -> list[str]:
        return self._noted("finished")

    def _noted(self, what: str) -> list[str]:
        return [entry["prompt_id"] for entry in read_journal(self._log)[self._before :] if entry["at"] == what]


def previews(broker: BrokerStandIn, key: Key) -> list[ProgressReport]:
    return [report for report in broker.all(ProgressReport, key) if report.image]


class WorkerProcess:
    """`python -m worker` with a log file."""

    def __init__(self, folder: Path, network: Network, comfyui: str, name: str = "w1", **settings: str) -> None:
        given = {
            "network.workers": network.workers,
            "network.files": network.files,
            "worker.history_poll": "1 s",
            "broker.lease": "2 s",
            "broker.heartbeat": "200 ms",
        } | {name.replace("__", "."): value for name, value in settings.items()}
        flags = [flag for setting, value in given.items() for flag in ("--set", f"{setting}={value}")]
        self.network = network
        self._command = [sys.executable, "-m", "worker", "--name", name, "--comfyui", comfyui, *flags]
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        self.log = folder / f"{name}.log"
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, for the first time or anew; returns at once."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environ,
                text=True,
            )

    @property
    def child(self) -> subprocess.Popen[str]:
        assert self._child is not None
        return self._child

    def said(self) -> str:
        """Its standard output, once it has ended."""
        assert self.child.stdout is not None
        with self.child.stdout as out:
            return out.read()

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """As by kill -9."""
        self.signal(signal.SIGKILL)
        self.child.wait(PATIENCE_S)
        self.said()

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(PATIENCE_S)
        if self._child is not None and self._child.stdout is not None:
            self._child.stdout.close()


@contextlib.contextmanager
def running_worker(folder: Path, broker: BrokerStandIn, comfyui: str, **settings: str) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(folder, broker.network, comfyui, **settings)
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()
