"""A ComfyUI and a shell around the worker's core, in memory: what is asked is done when a test says so.

The ComfyUI keeps to the rules of the real one (one queue, one prompt at a time, history at the end, all lost with the
process) and knows how often each prompt was begun. Every message for the broker is encoded and decoded again.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import Counter, deque
from typing import Any

from broker.protocol.codec import WORKER_SENDS, decode, encode
from broker.protocol.records import Gpu, Limits, Output, Reason, Stats
from broker.protocol.worker import Dispatch, Heartbeat, Welcome
from comfyui import messages
from comfyui.outputs import OutputFile
from comfyui.replies import (
    Absent,
    Finished,
    Found,
    HistoryEntry,
    Outcome,
    Pending,
    Queue,
    QueueItem,
    Running,
)
from comfyui.workflow import parse
from worker.core import verdict
from worker.core.asks import (
    Deliver,
    Dequeue,
    Drop,
    Free,
    Interrupt,
    Key,
    Listen,
    Look,
    NewSocket,
    Pulse,
    Send,
    Stage,
    Stop,
    StoreCapabilities,
    Submit,
    Survey,
)
from worker.core.link import Facts, Identity
from worker.core.machine import Machine
from worker.core.mending import Mending
from worker.core.progress import Pacing

SESSION = "a" * 32
BROKER = "b" * 32
LIMITS = Limits(start_to_close_ms=600_000, stall_ms=60_000, hung_ms=0)
PACING = Pacing(poll_ms=5_000, progress_per_s=10, previews_per_s=4)
FACTS = Facts(
    comfyui_version="0.3.64",
    simulated=False,
    capabilities="c" * 64,
    gpu=Gpu(name="card", kind="cuda", vram_total_bytes=1 << 34),
)
STATS = Stats(
    gpu_busy=None, vram_free_bytes=0, vram_total_bytes=0, gpu_celsius=None, gpu_watts=None,
    ram_free_bytes=0, ram_total_bytes=0, disk_free_bytes=None, cpu_busy=0.0, comfy_queue=0, comfy_fault="",
)  # fmt: skip
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
WORKFLOW = json.dumps(GRAPH).encode()
DISK_FULL = verdict.failure(Reason.INPUT_MISSING, "no such file")


def welcome(resume: tuple[Any, ...] = (), *, broker: str = BROKER, need_capabilities: bool = False) -> Welcome:
    return Welcome(
        broker=broker, heartbeat_ms=2_000, lease_ms=10_000, need_capabilities=need_capabilities, resume=resume
    )


def dispatch(serial: int, job_id: str | None = None, attempt: int = 1, **changes: Any) -> Dispatch:
    said = Dispatch(
        job_id=job_id if job_id is not None else str(uuid.UUID(int=serial)),
        attempt=attempt,
        serial=serial,
        files=(),
        limits=LIMITS,
        workflow=WORKFLOW,
    )
    return dataclasses.replace(said, **changes)


def machine(prefetch: int = 1, *, restartable: bool = False) -> Machine:
    who = Identity(worker="w1", session=SESSION, version="1", labels=("fast",))
    mending = Mending(possible=restartable, patience_ms=60_000)
    return Machine(who, parse(WORKFLOW), mending, prefetch=prefetch, pacing=PACING, draw=lambda: 0.5)


def entry(prompt_id: str, outcome: Outcome = Outcome.SUCCESS, **changes: Any) -> HistoryEntry:
    files = (OutputFile("2", "images", "x_00001_.png", "", "output"),) if outcome is Outcome.SUCCESS else ()
    said = HistoryEntry(prompt_id=prompt_id, outcome=outcome, files=files, failure=None, run_ms=50, submit_id=prompt_id)
    return dataclasses.replace(said, **changes)


class ComfyModel:
    """One ComfyUI; `events` are the messages its socket has not delivered yet."""

    def __init__(self) -> None:
        self.up = True
        self.pending: list[QueueItem] = []
        self.running: QueueItem | None = None
        self.history: dict[str, HistoryEntry] = {}
        self.interrupted = False
        self.begun: Counter[str] = Counter()
        self.events: deque[messages.Message] = deque()

    def queue(self) -> Queue:
        return Queue((self.running,) if self.running is not None else (), tuple(self.pending))

    def submit(self, prompt_id: str, client_id: str) -> None:
        self.pending.append(QueueItem(prompt_id, float(len(self.begun)), client_id, prompt_id))

    def find(self, prompt_id: str) -> Found:
        if prompt_id in self.history:
            return Finished(self.history[prompt_id])
        if self.running is not None and self.running.prompt_id == prompt_id:
            return Running(self.running)
        for ahead, item in enumerate(self.pending):
            if item.prompt_id == prompt_id:
                return Pending(item, ahead + (self.running is not None))
        return Absent()

    def begin(self) -> None:
        """The next prompt starts, if one can."""
        if self.up and self.running is None and self.pending:
            self.running = self.pending.pop(0)
            self.begun[self.running.prompt_id] += 1
            self.interrupted = False
            self.events.append(messages.ExecutionStart(self.running.prompt_id))
            self.events.append(messages.Executing(self.running.prompt_id, "1"))

    def finish(self, outcome: Outcome) -> None:
        """The running prompt ends."""
        if self.up and self.running is not None:
            prompt_id = self.running.prompt_id
            outcome = Outcome.INTERRUPTED if self.interrupted else outcome
            self.history[prompt_id] = entry(prompt_id, outcome)
            self.running = None
            if outcome is Outcome.SUCCESS:
                self.events.append(messages.Executed(prompt_id, "2", self.history[prompt_id].files))
                self.events.append(messages.ExecutionSuccess(prompt_id))
            self.events.append(messages.Executing(prompt_id, None))

    def interrupt(self, prompt_id: str) -> None:
        if self.running is not None and self.running.prompt_id == prompt_id:
            self.interrupted = True

    def dequeue(self, prompt_id: str) -> None:
        self.pending = [item for item in self.pending if item.prompt_id != prompt_id]

    def die(self) -> None:
        self.up = False
        self.pending, self.running, self.history = [], None, {}
        self.events.clear()


class World:
    """A machine, its ComfyUI, and the shell between: `said` is what went to the broker, in order."""

    def __init__(self, prefetch: int = 1, *, restartable: bool = False) -> None:
        self.now_ms = 1_000
        self.comfy = ComfyModel()
        self.machine = machine(prefetch, restartable=restartable)
        self.said: list[Any] = []
        self.calls: deque[Any] = deque()
        self.carried: deque[Stage | Deliver] = deque()
        self.stop: Stop | None = None
        self.sockets = 0
        self.listens: list[str] = []

    # ---- the shell

    def act(self, asks: list[Any]) -> None:
        for ask in asks:
            match ask:
                case Send(message):
                    self.say(message)
                case Pulse(held):
                    self.say(Heartbeat(stats=STATS, held=held))
                case NewSocket():
                    self.sockets += 1
                case StoreCapabilities():
                    pass
                case Stop():
                    self.stop = ask
                case Listen(client_id):
                    self.listens.append(client_id)
                case Stage() | Deliver():
                    self.carried = deque(errand for errand in self.carried if errand.key != ask.key)
                    self.carried.append(ask)
                case Drop(key):
                    self.calls = deque(call for call in self.calls if getattr(call, "key", None) != key)
                    self.carried = deque(errand for errand in self.carried if errand.key != key)
                case _:
                    self.calls.append(ask)

    def say(self, message: Any) -> None:
        assert decode(encode(message), WORKER_SENDS) == message
        self.said.append(message)

    def call(self, *, answered: bool = True) -> None:
        """Make the oldest call. not answered: it is carried out, and nobody hears of it."""
        call = self.calls.popleft()
        self.act(self._made(call, answered and self.comfy.up))

    def _made(self, call: Any, answered: bool) -> list[Any]:
        comfy, now_ms = self.comfy, self.now_ms
        match call:
            case Submit(key, prompt_id):
                if comfy.up:
                    comfy.submit(prompt_id, self.machine.client_id)
                if not answered:
                    return self.machine.answer(key, lambda run, _out: run.unsure(now_ms), now_ms)
                return self.machine.answer(key, lambda run, out: run.submitted(out, prompt_id, {}, now_ms), now_ms)
            case Look(key, prompt_id):
                return self.machine.looked(key, comfy.find(prompt_id) if answered else None, now_ms)
            case Survey():
                return self.machine.surveyed(comfy.queue() if answered else None, now_ms)
            case Dequeue(prompt_id) if comfy.up:
                comfy.dequeue(prompt_id)
            case Interrupt(prompt_id) if comfy.up:
                comfy.interrupt(prompt_id)
            case Free() | Dequeue() | Interrupt():
                pass
            case _:
                raise TypeError(call)
        return []

    def carry(self, *, well: bool = True) -> None:
        """The oldest errand comes to its end."""
        errand = self.carried.popleft()
        now_ms = self.now_ms
        if isinstance(errand, Stage):
            names = {file.name: f"fleet_{file.sha256}" for file in errand.files}
            if well:
                self.tell(errand.key, lambda run, out: run.inputs_staged(out, names, now_ms))
            else:
                self.tell(errand.key, lambda run, out: run.not_taken(out, DISK_FULL, now_ms))
        elif well:
            outputs = tuple(output(str(place)) for place in range(len(errand.sources)))
            self.tell(errand.key, lambda run, out: run.delivered(out, outputs, now_ms))
        else:
            self.tell(errand.key, lambda run, out: run.delivery_failed(out, "cut", now_ms))

    def tell(self, key: Key, tell: Any) -> None:
        self.act(self.machine.answer(key, tell, self.now_ms))

    def hear(self) -> None:
        """The oldest message on ComfyUI's socket arrives."""
        self.act(self.machine.heard([self.comfy.events.popleft()], self.now_ms))

    # ---- the world

    def tick(self, by_ms: int = 0) -> None:
        self.now_ms += by_ms
        self.act(self.machine.tick(self.now_ms))

    def tell_machine(self, message: Any) -> None:
        """A message of the broker arrives."""
        self.act(self.machine.received(message, self.now_ms))

    def rise(self, *, targeted_interrupt: bool = True) -> None:
        """ComfyUI is there and its socket is open."""
        self.comfy.up = True
        self.act(self.machine.comfy_up(FACTS, targeted_interrupt=targeted_interrupt, now_ms=self.now_ms))

    def fall(self) -> None:
        self.comfy.die()
        self.act(self.machine.comfy_down(self.now_ms))

    def join(self, resume: tuple[Any, ...] = ()) -> None:
        """ComfyUI is up, the broker welcomes the worker, and its queue is surveyed."""
        self.rise()
        self.tell_machine(welcome(resume))
        self.work()

    def work(self) -> None:
        """Every call and errand that is asked for comes to a good end."""
        self.tick()
        while self.calls or self.carried:
            if self.calls:
                self.call()
            else:
                self.carry()
            self.tick()

    def run_prompt(self, outcome: Outcome = Outcome.SUCCESS) -> None:
        """ComfyUI runs its next prompt, and its socket tells."""
        self.comfy.begin()
        self.comfy.finish(outcome)
        while self.comfy.events:
            self.hear()
        self.work()

    def said_of(self, job_id: str) -> list[Any]:
        return [message for message in self.said if getattr(message, "job_id", None) == job_id]

    def all(self, kind: type[Any], key: Key | None = None) -> list[Any]:
        found = [message for message in self.said if isinstance(message, kind)]
        return found if key is None else [m for m in found if (m.job_id, m.attempt) == key]


def output(name: str) -> Output:
    return Output(node_id="2", name=name, kind="output", media_type="image/png", sha256="d" * 64, size_bytes=1)
