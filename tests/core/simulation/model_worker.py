"""A worker as the contract describes it, thin: one process life, two slots, a ComfyUI that outlives it.

The real one is worker/; this one is the broker's counterpart in the simulation, kept small enough to be right.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from broker.protocol import worker as wire
from broker.protocol.records import Failure, Gpu, Held, Output, Phase, Reason, Stats, Timings
from tests.core.simulation.net import Clock

SLOTS = 2
#: What some jobs need on a card, though they do not say so.
HIDDEN_NEED = 12 << 30
#: What an attempt fails with for no reason of the world's.
PASSING = [Reason.NODE_ERROR, Reason.COMFY_UNREACHABLE, Reason.OUTPUT_LOST, Reason.STALLED]
TIMINGS = Timings(staging_ms=0, waiting_ms=0, running_ms=1, loading_ms=0, finishing_ms=0)
STATS = Stats(
    gpu_busy=0.5, vram_free_bytes=1, vram_total_bytes=2, gpu_celsius=None, gpu_watts=None, ram_free_bytes=1,
    ram_total_bytes=2, disk_free_bytes=3, cpu_busy=0.1, comfy_queue=0, comfy_fault="",
)  # fmt: skip
#: How often a worker asks for the history of a prompt whose ComfyUI says nothing.
HISTORY_MS = 5_000
Attempt = tuple[str, int]


@dataclass
class Prompt:
    """A prompt in the ComfyUI behind a worker; it survives the worker's process."""

    attempt: Attempt
    #: When it is done, once begun.
    done_ms: int | None = None
    began: bool = False
    #: What came of it: the card's memory was too small.
    ran_out: bool = False


class Comfy:
    """One card: prompts one after the other. Its log is the truth about what ran."""

    def __init__(self, clock: Clock, rng: random.Random, vram_bytes: int, deadly: dict[str, int]) -> None:
        """deadly: jobs that kill whatever begins them, and how often each did."""
        self.vram_bytes = vram_bytes
        self.nodes: tuple[str, ...] = ("N",)
        self.prompts: dict[Attempt, Prompt] = {}
        self.began: list[Attempt] = []
        #: Every prompt fails, as long as this is so.
        self.poisoned = False
        #: It tells nothing of itself: only who asks for its history learns what is done.
        self.silent = False
        #: The next prompt needs more memory than there is.
        self.runs_out = False
        #: Until then it answers nobody who starts beside it.
        self.rises_ms = 0
        #: A prompt has brought it down, and nobody has started it anew yet.
        self.killed = False
        self._deadly = deadly
        self._clock, self._rng = clock, rng

    @property
    def up(self) -> bool:
        return self._clock.now_ms >= self.rises_ms

    def post(self, attempt: Attempt) -> None:
        self.prompts.setdefault(attempt, Prompt(attempt))
        self.advance()

    def drop(self, attempt: Attempt) -> None:
        self.prompts.pop(attempt, None)
        self.advance()

    def advance(self) -> None:
        running = any(p.began and not self.done(p.attempt) for p in self.prompts.values())
        waiting = next((p for p in self.prompts.values() if not p.began), None)
        if not running and waiting is not None:
            waiting.began, waiting.done_ms = True, self._clock.now_ms + self._rng.randint(200, 6_000)
            self.began.append(waiting.attempt)
            waiting.ran_out, self.runs_out = self.runs_out, False
            if waiting.attempt[0] in self._deadly:
                self._deadly[waiting.attempt[0]] += 1
                self.killed = True
            self._clock.at(waiting.done_ms, self.advance)

    def clear(self) -> None:
        """Empty the queue and the history."""
        self.prompts = {key: p for key, p in self.prompts.items() if p.began and not self.done(key)}

    def done(self, attempt: Attempt) -> bool:
        prompt = self.prompts.get(attempt)
        return prompt is not None and prompt.done_ms is not None and prompt.done_ms <= self._clock.now_ms


class ModelWorker:
    """One process life. `send(message)` puts a message on the network."""

    def __init__(
        self,
        name: str,
        session: str,
        comfy: Comfy,
        *,
        clock: Clock,
        rng: random.Random,
        send: Callable[[Any], None],
        put: Callable[[str], None],
    ) -> None:
        """put: lets a file leave, which travels beside the messages; nobody says whether it arrived."""
        self.name, self.session, self.comfy = name, session, comfy
        self.clock, self.rng, self.send, self.put = clock, rng, send, put
        self.alive = True
        self.paused_until_ms = 0
        #: It beats, and ends nothing.
        self.stuck = False
        self.draining = False
        #: Empty while its ComfyUI has not answered.
        self.nodes = comfy.nodes if comfy.up else ()
        self.broker = ""
        self.heard_ms = clock.now_ms
        self.held: dict[Attempt, Phase] = {}
        #: Ends reported and not yet recorded.
        self.ends: dict[Attempt, Any] = {}
        self.cancelled: set[Attempt] = set()
        self.seen = 0
        #: Of the newest Ready, and of the newest one before the last heartbeat.
        self.ready_serial = self.beat_serial = 0
        #: Attempts whose result this process had in hand.
        self.finished: set[Attempt] = set()
        self.announce()
        self.beat()

    # ---- its own time

    def beat(self) -> None:
        if not self.alive:
            return
        self.clock.after(2_000, self.beat)
        if self.clock.now_ms < self.paused_until_ms:
            return
        if not self.broker or self.clock.now_ms - self.heard_ms > 10_000:
            self.announce()
            return
        self.beat_serial = self.ready_serial
        stats = STATS if self.nodes else replace(STATS, comfy_fault="it has not answered")
        self.send(wire.Heartbeat(stats=stats, held=self._held()))
        for end in self.ends.values():
            self.send(end)

    def look(self) -> None:
        """See whether ComfyUI has finished anything; called as time passes."""
        if self.alive and self.comfy.killed:
            self.alive = self.comfy.killed = False
            self.comfy.prompts.clear()
        if not self.alive or self.stuck or self.clock.now_ms < self.paused_until_ms:
            return
        if not self.nodes and self.comfy.up:
            self.nodes = self.comfy.nodes
            self.announce()
        if self.draining and not self.held:
            self.send(wire.Leave(why="drained"))
            self.alive = False
        if self.comfy.silent and self.clock.now_ms % HISTORY_MS:
            return
        for attempt, phase in list(self.held.items()):
            if phase is Phase.RUNNING:
                self._ask_history(attempt)

    def _ask_history(self, attempt: Attempt) -> None:
        prompt = self.comfy.prompts.get(attempt)
        if prompt is None:
            self._end(attempt, self._fail(attempt, Reason.COMFY_LOST))
        elif self.comfy.done(attempt):
            ran_out = prompt.ran_out
            self._end(attempt, self._fail(attempt, Reason.OUT_OF_MEMORY) if ran_out else self._complete(attempt))

    def announce(self) -> None:
        self.send(
            wire.Announce(
                worker=self.name, session=self.session, version="1", comfyui_version="0.3.64", simulated=True,
                capabilities=self._digest(), labels=(), restartable=False, held=self._held(),
                gpu=Gpu(name="card", kind="cuda", vram_total_bytes=self.comfy.vram_bytes),
            )
        )  # fmt: skip

    def ready(self) -> None:
        self.ready_serial += 1
        room = (
            0
            if self.draining or not self.nodes
            else SLOTS - sum(1 for attempt in self.held if attempt not in self.ends)
        )
        self.send(wire.Ready(serial=self.ready_serial, credits=max(0, room), seen=self.seen))

    # ---- what the broker says

    def hear(self, message: Any) -> None:
        if not self.alive:
            return
        if self.clock.now_ms < self.paused_until_ms:
            self.clock.at(self.paused_until_ms + 1, lambda: self.hear(message))
            return
        self.heard_ms = self.clock.now_ms
        match message:
            case wire.Welcome():
                self._welcome(message)
            case wire.Refused(retry=True):
                joined, self.broker = self.broker, ""
                if joined:  # else the next beat does
                    self.announce()
            case wire.Refused():
                self.send(wire.Leave(why="refused"))
                self.alive = False
            case wire.Dispatch():
                self._dispatch(message)
            case wire.Abandon() | wire.Recorded():
                self._forget((message.job_id, message.attempt))
            case wire.Beat():
                self._offer(message.need_capabilities)
                if message.ready < self.beat_serial:
                    self.ready()
            case wire.Probe():
                poisoned = self.comfy.poisoned
                self.send(wire.Probed(serial=message.serial, passed=not poisoned, why="poisoned" if poisoned else ""))
            case wire.Drain():
                self.draining = True
                self.send(wire.Draining())
                self.ready()
            case wire.OutputsMissing():
                for sha256 in message.missing:
                    self.put(sha256)
            case wire.CancelAttempt():
                self._cancel((message.job_id, message.attempt))
            case _:
                pass

    def _welcome(self, said: wire.Welcome) -> None:
        if said.broker != self.broker:
            self.broker, self.seen = said.broker, 0
        self._offer(said.need_capabilities)
        for resume in said.resume:
            attempt = (resume.job_id, resume.attempt)
            if attempt in self.held:
                continue
            if attempt in self.comfy.prompts:
                self.held[attempt] = Phase.RUNNING
                self._accepted(attempt)
            else:
                self._end(attempt, self._fail(attempt, Reason.WORKER_LOST))
        for end in self.ends.values():
            self.send(end)
        self.ready()

    def _offer(self, asked: bool) -> None:
        if asked:
            digest = self._digest()
            assert digest is not None, "asked for what its ComfyUI has not told"
            self.send(wire.Capabilities(digest=digest, nodes=self.nodes, models=()))

    def _digest(self) -> str | None:
        return hashlib.sha256(repr(self.nodes).encode()).hexdigest() if self.nodes else None

    def _dispatch(self, said: wire.Dispatch) -> None:
        attempt = (said.job_id, said.attempt)
        self.seen = max(self.seen, said.serial)
        if attempt in self.held:
            self._accepted(attempt)
            return
        if sum(1 for held in self.held if held not in self.ends) >= SLOTS:
            return  # no room: the broker takes it back
        self.held[attempt] = Phase.RUNNING
        if self.comfy.poisoned:
            self._end(attempt, self._fail(attempt, Reason.POISONED))
            return
        if self.comfy.vram_bytes < HIDDEN_NEED and int(attempt[0][-1], 16) % 4 == 0:
            self._end(attempt, self._fail(attempt, Reason.OUT_OF_MEMORY))
            return
        if self.rng.random() < 0.1:
            self._end(attempt, self._fail(attempt, self.rng.choice(PASSING)))
            return
        self.comfy.post(attempt)
        self._accepted(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt in self.held and attempt not in self.ends:
            self.comfy.drop(attempt)
            self._end(attempt, self._fail(attempt, Reason.CANCELLED))

    def _forget(self, attempt: Attempt) -> None:
        if self.held.pop(attempt, None) is not None or attempt in self.comfy.prompts:
            self.ends.pop(attempt, None)
            self.comfy.drop(attempt)
            self.ready()

    def lose_prompts(self) -> None:
        """ComfyUI is started anew under this process, which notices."""
        self.comfy.prompts.clear()
        if self.alive:
            for attempt, phase in list(self.held.items()):
                if phase is Phase.RUNNING:
                    self._end(attempt, self._fail(attempt, Reason.COMFY_LOST))

    # ---- what it says

    def _end(self, attempt: Attempt, end: Any) -> None:
        self.held[attempt] = Phase.ENDED
        self.ends[attempt] = end
        self.send(end)
        self.ready()

    def _accepted(self, attempt: Attempt) -> None:
        self.send(wire.Accepted(job_id=attempt[0], attempt=attempt[1], prompt_id=f"p{attempt[1]}"))

    def _complete(self, attempt: Attempt) -> wire.Complete:
        self.finished.add(attempt)
        name = f"{self.name}-{attempt[1]}.png"
        sha256 = hashlib.sha256(f"{attempt[0]} {name}".encode()).hexdigest()
        self.put(sha256)
        output = Output(
            node_id="9", name=name, kind="output", media_type="image/png", sha256=sha256, size_bytes=1,
        )  # fmt: skip
        return wire.Complete(job_id=attempt[0], attempt=attempt[1], outputs=(output,), timings=TIMINGS)

    def _fail(self, attempt: Attempt, reason: Reason) -> wire.Fail:
        why = Failure(reason=reason, text="simulated", node_id="", node_type="", traceback="")
        return wire.Fail(job_id=attempt[0], attempt=attempt[1], failure=why, timings=TIMINGS)

    def _held(self) -> tuple[Held, ...]:
        return tuple(Held(job_id=job_id, attempt=n, phase=phase) for (job_id, n), phase in self.held.items())
