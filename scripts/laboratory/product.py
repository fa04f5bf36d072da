"""The product itself: broker.core.fleet.Fleet, through its one door, with workers that speak the contract.

Nothing of it is rebuilt here: the queue, the leases, what is learnt and every decision are the broker's own. Messages
take no time; a worker is its ComfyUI's shadow, and dies with it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, Final

from broker.core.events import Event, FromClient, FromWorker, Tick
from broker.core.fleet import Fleet
from broker.core.rules import Now, Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import Failure, Gpu, Held, Needs, Phase, Progress, ProgressKind, Reason, Stats, Timings
from scripts.laboratory.agenda import Agenda
from scripts.laboratory.arena import Arena
from scripts.laboratory.comfy import Comfy, Prompt, picture
from scripts.laboratory.traffic import Job

#: One running, one staged behind it, as a worker has by default.
SLOTS: Final = 2
NODES: Final = ("KSampler",)
CAPABILITIES: Final = "0" * 64
#: Of a ComfyUI that keeps models in memory while there is room.
VERSION: Final = "0.45.2"
#: A lease is so many heartbeats, as in config.ini.
BEATS: Final = 5
#: The longest films take longer than config.ini lets a run take.
LONGEST_MS: Final = 2 * 3_600_000
UTC_MS: Final = 1_800_000_000_000
CLIENT: Final = "c" * 32
GIB: Final = 2**30
Attempt = tuple[str, int]


class Product:
    """The broker's side, and the clients'."""

    def __init__(self, seed: int, policy: str) -> None:
        """policy: one of broker.core.placement.POLICIES."""
        self.resubmitted = 0
        self._policy = policy
        self._rng = random.Random(seed)

    def begin(self, arena: Arena) -> None:
        self.arena, self.agenda = arena, arena.agenda
        beat_ms = arena.scenario.heartbeat_ms
        self.rules = Rules(
            heartbeat_ms=beat_ms, lease_ms=BEATS * beat_ms, policy=self._policy, start_to_close_ms=LONGEST_MS
        )
        self.fleet = Fleet(self.rules, "f" * 32, jitter=self._rng.random, counts={}, last_sequence=0, now=self._now())
        self.models = tuple(sorted({model.name for job in arena.scenario.jobs for model in job.models}))
        self._jobs = {job_id(job): job for job in arena.scenario.jobs}
        self._inbox: list[Event] = []
        self._asked = False
        self._lives = 0
        self._workers: dict[int, Worker] = {}
        self._by_session: dict[str, Worker] = {}
        for comfy in arena.cards:
            self.back(comfy)

    # ---- what the arena tells

    def submitted(self, job: Job) -> None:
        needs = Needs(
            nodes=NODES, models=tuple(model.name for model in job.models), labels=(), vram_bytes=job.vram_bytes,
            pixels=job.pixels, steps=job.steps, signature="+".join(model.name for model in job.models),
        )  # fmt: skip
        request = client.Submit(
            request_id=f"{job.number:032x}", job_id=job_id(job), idempotency_key="", owner=job.owner, title="",
            template="", labels=(), priority=0, needs=needs, pin="", deadline_ms=None,
            wait_for_worker=True, files=(), text="", workflow=b"", form=b"", parts=(),
        )  # fmt: skip
        self.tell(FromClient(CLIENT, request))

    def began(self, comfy: Comfy, prompt: Prompt) -> None:
        self._workers[comfy.number].began(prompt)

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        self._workers[comfy.number].ended(prompt)

    def died(self, comfy: Comfy, held: list[Prompt]) -> None:
        del self._by_session[self._workers.pop(comfy.number).session]

    def back(self, comfy: Comfy) -> None:
        self._lives += 1
        worker = Worker(comfy, f"{self._lives:032x}", self.models, self.agenda, self.tell)
        self._workers[comfy.number] = self._by_session[worker.session] = worker
        worker.announce()
        self.agenda.after(1 + comfy.number % self.rules.heartbeat_ms, functools.partial(self._beat, worker))

    def job(self, said: wire.Dispatch) -> Job:
        return self._jobs[said.job_id]

    # ---- turns

    def tell(self, event: Event) -> None:
        """Something for the broker; everything that comes in one millisecond shares a turn."""
        self._inbox.append(event)
        if not self._asked:
            self._asked = True
            self.agenda.after(0, self._turn)

    def _turn(self) -> None:
        self._asked = True  # whatever comes meanwhile is taken here
        now = self._now()
        while True:
            heard, self._inbox = self._inbox, []
            sends = [send for event in (*heard, Tick()) for send in self.fleet.handle(event, now).sends]
            for send in sends:
                receiver = self._by_session.get(send.session)
                if receiver is not None:
                    receiver.hear(send.message, self._jobs)
            if not self._inbox:
                break
        self._asked = False
        self._due_ms = now.mono_ms + max(1, self.fleet.sleep_ms(now.mono_ms))
        self.agenda.at(self._due_ms, functools.partial(self._tick, self._due_ms))

    def _tick(self, due_ms: int) -> None:
        if due_ms == self._due_ms and not self._asked:
            self._turn()

    def _beat(self, worker: Worker) -> None:
        if self._by_session.get(worker.session) is worker:
            worker.beat()
            self.agenda.after(self.rules.heartbeat_ms, functools.partial(self._beat, worker))

    def _now(self) -> Now:
        return Now(self.agenda.now_ms, UTC_MS + self.agenda.now_ms)


class Worker:
    """One process life beside one ComfyUI."""

    def __init__(
        self, comfy: Comfy, session: str, models: tuple[str, ...], agenda: Agenda, tell: Callable[[Event], None]
    ) -> None:
        self.comfy, self.session = comfy, session
        self._models, self._agenda, self._tell = models, agenda, tell
        self._held: dict[Attempt, Prompt] = {}
        self._seen = 0
        self._serial = 0

    def announce(self) -> None:
        card = self.comfy.card
        self._say(
            wire.Announce(
                worker=f"gpu-{self.comfy.number:04}", session=self.session, version="1", comfyui_version=VERSION,
                simulated=True, restartable=False, capabilities=CAPABILITIES, labels=(), held=(),
                gpu=Gpu(name=card.name, kind=card.kind, vram_total_bytes=card.vram_bytes),
            )
        )  # fmt: skip

    def beat(self) -> None:
        comfy, card = self.comfy, self.comfy.card
        busy = comfy.running is not None or comfy.foreign_now()
        stats = Stats(
            gpu_busy=1.0 if busy else 0.0, vram_free_bytes=max(0, card.vram_bytes - comfy.used_bytes),
            vram_total_bytes=card.vram_bytes, gpu_celsius=None, gpu_watts=None, ram_free_bytes=64 * GIB,
            ram_total_bytes=64 * GIB, disk_free_bytes=None, cpu_busy=0.1, comfy_queue=comfy.queued, comfy_fault="",
        )  # fmt: skip
        held = tuple(
            Held(job_id=j, attempt=n, phase=Phase.RUNNING if comfy.running is prompt else Phase.STAGED)
            for (j, n), prompt in self._held.items()
        )
        self._say(wire.Heartbeat(stats=stats, held=held))

    def hear(self, message: Any, jobs: dict[str, Job]) -> None:
        match message:
            case wire.Welcome():
                if message.need_capabilities:
                    self._offer()
                for resume in message.resume:
                    self._fail(resume.job_id, resume.attempt, Reason.WORKER_LOST)
                self._ready()
            case wire.Beat(need_capabilities=True):
                self._offer()
            case wire.Dispatch():
                self._dispatched(message, jobs[message.job_id])
            case wire.Abandon():
                self._drop((message.job_id, message.attempt))
            case wire.CancelAttempt():
                if self._drop((message.job_id, message.attempt)):
                    self._fail(message.job_id, message.attempt, Reason.CANCELLED)
            case wire.Probe():
                self._say(wire.Probed(serial=message.serial, passed=True, why=""))
            case _:
                pass

    def began(self, prompt: Prompt) -> None:
        progress = Progress(kind=ProgressKind.STARTED, node_id="", node_type="", value=0, most=0, fraction=0.0, text="")
        key = _key(prompt)
        report = wire.ProgressReport(
            job_id=key[0], attempt=key[1], serial=0, progress=progress, media_type="", image=b""
        )
        self._say(report)

    def ended(self, prompt: Prompt) -> None:
        key = _key(prompt)
        del self._held[key]
        timings = Timings(
            staging_ms=0, waiting_ms=prompt.began_ms - prompt.posted_ms,
            running_ms=self._agenda.now_ms - prompt.began_ms, loading_ms=round(prompt.load_ms), finishing_ms=0,
        )  # fmt: skip
        self._say(wire.Complete(job_id=key[0], attempt=key[1], outputs=(), timings=timings))
        self._ready()

    # ---- within

    def _dispatched(self, said: wire.Dispatch, job: Job) -> None:
        self._seen = max(self._seen, said.serial)
        key = said.job_id, said.attempt
        self._held[key] = prompt = picture(job, said.attempt)
        self._say(wire.Accepted(job_id=key[0], attempt=key[1], prompt_id=f"{key[0]}-{key[1]}"))
        self.comfy.post(prompt)
        self._ready()

    def _drop(self, key: Attempt) -> bool:
        prompt = self._held.pop(key, None)
        if prompt is None:
            return False
        self.comfy.drop(prompt)
        self._ready()
        return True

    def _fail(self, job_id: str, attempt: int, reason: Reason) -> None:
        why = Failure(reason=reason, text="it is gone", node_id="", node_type="", traceback="")
        timings = Timings(staging_ms=0, waiting_ms=0, running_ms=0, loading_ms=0, finishing_ms=0)
        self._say(wire.Fail(job_id=job_id, attempt=attempt, failure=why, timings=timings))

    def _offer(self) -> None:
        self._say(wire.Capabilities(digest=CAPABILITIES, nodes=NODES, models=self._models))

    def _ready(self) -> None:
        self._serial += 1
        self._say(wire.Ready(serial=self._serial, credits=max(0, SLOTS - len(self._held)), seen=self._seen))

    def _say(self, message: Any) -> None:
        self._tell(FromWorker(self.session, message))


def job_id(job: Job) -> str:
    return f"00000000-0000-0000-0000-{job.number:012x}"


def _key(prompt: Prompt) -> Attempt:
    assert prompt.job is not None
    return job_id(prompt.job), prompt.attempt
