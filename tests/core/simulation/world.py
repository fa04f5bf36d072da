"""A whole fleet in one thread: broker, model workers, a client that records what it was told, and what goes wrong.

`World(seed).run()` returns the violations it found, as sentences; none is the expected answer.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable
from typing import Any

from broker.core.events import FromClient, FromWorker
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.rules import Now, Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import JobState, Needs
from broker.store.memory import MemoryStore
from broker.turn import Outbound, Turn
from tests.core.simulation.model_worker import Comfy, ModelWorker
from tests.core.simulation.net import Clock, Net, Weather

STORM_MS = 40_000
#: Longer than every limit a healed fleet needs: leases, backoff, three attempts of the longest prompt.
SETTLE_MS = 150_000
NEEDS = Needs(nodes=("N",), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="s")
JOBS = 10
WORKERS = 3


class World:
    def __init__(
        self,
        seed: int,
        *,
        make_fleet: type[Fleet] = Fleet,
        make_turn: type[Turn] = Turn,
        make_worker: type[ModelWorker] = ModelWorker,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.net = Net(self.clock, self.rng)
        self._make_fleet, self._make_turn, self._make_worker = make_fleet, make_turn, make_worker
        self.violations: list[str] = []
        self.trace = hashlib.sha256()
        self.store = MemoryStore()
        self.inbox: list[FromWorker] = []
        self.requests: list[FromClient] = []
        self.turn_asked = False
        self.broker_up = False
        self.broker_paused_until_ms = 0
        self.lives = 0
        #: What the client was told: accepted jobs, and recorded results by job.
        self.accepted: set[str] = set()
        self.recorded: dict[str, str] = {}
        self.dispatched: dict[str, set[int]] = {}
        self.offered: dict[str, wire.Ready] = {}
        #: Whether the network has ever changed the order of messages; TCP does not, a reconnect may.
        self.reordered = False
        self.comfys = [Comfy(self.clock, self.rng) for _ in range(WORKERS)]
        self.workers: list[ModelWorker] = []
        self.removed: set[int] = set()
        self.by_session: dict[str, ModelWorker] = {}

    # ---- the run

    def run(self) -> list[str]:
        self.start_broker()
        for index in range(WORKERS):
            self.workers.append(self.start_worker(index))
        for number in range(JOBS):
            self.clock.at(self.rng.randint(0, STORM_MS // 2), functools.partial(self.submit, number))
        for _ in range(self.rng.randint(0, 4)):
            self.clock.at(self.rng.randint(1_000, STORM_MS), self.cancel_one)
        for _ in range(self.rng.randint(3, 12)):
            self.clock.at(self.rng.randint(500, STORM_MS), self.rng.choice(self.faults()))
        self.tick_workers()
        self.clock.run_until(STORM_MS)
        self.heal()
        for _ in range(SETTLE_MS // 1_000):
            self.clock.run_until(self.clock.now_ms + 1_000)
            if self.violations or self.all_over():
                break
        self.judge()
        return self.violations

    def all_over(self) -> bool:
        live = next(self.store.live(), None)
        return live is None and not self.inbox and len(self.accepted) == len(self.recorded_states())

    def judge(self) -> None:
        states = self.recorded_states()
        for job_id in sorted(self.accepted):
            state = states.get(job_id)
            if state is None:
                self.violate(f"job {job_id} was accepted and is gone")
            elif not state.terminal:
                self.violate(f"job {job_id} is stuck as {state}: {self.tell(job_id)}")

    def recorded_states(self) -> dict[str, JobState]:
        found = {job_id: self.store.job(job_id) for job_id in self.accepted}
        return {job_id: record.state for job_id, record in found.items() if record is not None}

    def tell(self, job_id: str) -> str:
        return " / ".join(f"{line.what} {line.attempt} {line.worker} {line.text}" for line in self.store.story(job_id))

    def violate(self, text: str) -> None:
        self.violations.append(f"{self.clock.now_ms} ms: {text}")

    # ---- broker

    def now(self) -> Now:
        return Now(mono_ms=self.clock.now_ms, utc_ms=1_000_000 + self.clock.now_ms)

    def start_broker(self) -> None:
        self.lives += 1
        self.offered.clear()
        fleet = self._make_fleet(
            Rules(),
            f"{self.lives:032x}",
            jitter=self.rng.random,
            counts=self.store.counts(),
            last_sequence=self.store.last_sequence(),
            now=self.now(),
        )
        fleet.recover(self.store.live(), self.store.notes(), self.store.figures(), self.now())
        self.turn = self._make_turn(fleet, self.store, lambda sha256: True)
        self.broker_up = True
        self.keep_turning(self.lives)

    def keep_turning(self, life: int) -> None:
        if self.broker_up and life == self.lives:
            self.take_turn()
            self.clock.after(max(1, self.turn.fleet.sleep_ms(self.clock.now_ms)), lambda: self.keep_turning(life))

    def ask_turn(self) -> None:
        """Messages that arrive within a few milliseconds share a turn."""
        if not self.turn_asked:
            self.turn_asked = True
            self.clock.after(self.rng.randint(0, 5), self.take_turn)

    def take_turn(self) -> None:
        self.turn_asked = False
        if not self.broker_up or self.clock.now_ms < self.broker_paused_until_ms:
            return
        heard, self.inbox = self.inbox, []
        asked, self.requests = self.requests, []
        for event in heard:
            self.note_heard(event)
        before = dict(self.turn.fleet.jobs.live)
        out = self.turn.take(heard, asked, self.now())
        check(self.turn.fleet)
        self.note_ends(before)
        self.deliver(out)
        if self.rng.random() < self.crash_chance():
            self.crash_broker()

    def crash_chance(self) -> float:
        return 0.002 if self.clock.now_ms < STORM_MS else 0.0

    def note_heard(self, event: FromWorker) -> None:
        said = event.message
        if isinstance(said, wire.Ready):
            newest = self.offered.get(event.session)
            if newest is None or said.serial > newest.serial:
                self.offered[event.session] = said
        if isinstance(said, wire.Announce):
            self.offered.pop(event.session, None)

    def note_ends(self, before: dict[str, Any]) -> None:
        """Every job that became terminal in this turn: once, and with the leased attempt's own result."""
        for job_id in before.keys() - self.turn.fleet.jobs.live.keys():
            record = self.store.job(job_id)
            assert record is not None
            if record.state is not JobState.SUCCEEDED:
                continue
            result = record.outputs[0].name
            if job_id in self.recorded:
                self.violate(f"job {job_id} recorded twice: {self.recorded[job_id]} and {result}")
            self.recorded[job_id] = result
            if result != f"{record.worker}-{record.attempt}.png":
                self.violate(f"job {job_id} attempt {record.attempt} on {record.worker} recorded {result}")

    def deliver(self, out: Outbound) -> None:
        for send in out.to_workers:
            self.trace.update(f"{self.clock.now_ms}{send.session}{send.message}".encode())
            if isinstance(send.message, wire.Dispatch):
                self.note_dispatch(send.session, send.message)
            target = self.by_session.get(send.session)
            if target is not None:
                self.net.carry("broker", target.name, functools.partial(target.hear, send.message))
        for reply in out.to_clients:
            self.trace.update(f"{self.clock.now_ms}{reply.message}".encode())
            if isinstance(reply.message, client.JobReply):
                self.accepted.add(reply.message.job.job_id)

    def note_dispatch(self, session: str, said: wire.Dispatch) -> None:
        earlier = self.dispatched.setdefault(said.job_id, set())
        if said.attempt in earlier:
            self.violate(f"job {said.job_id} attempt {said.attempt} dispatched twice")
        if said.job_id in self.recorded:
            self.violate(f"job {said.job_id} dispatched after its result was recorded")
        earlier.add(said.attempt)
        self.note_wasted(said)
        ready = self.offered.get(session)
        unseen = [
            job
            for job in self.turn.fleet.jobs.live.values()
            if job.session == session and ready is not None and job.dispatch_serial > ready.seen
        ]
        if ready is None or len(unseen) > ready.credits:
            self.violate(f"{said.job_id} dispatched to a session that offered {ready}, {len(unseen)} unseen there")

    def note_wasted(self, said: wire.Dispatch) -> None:
        """A result that its living worker had in hand is not thrown away, unless old beats arrived after newer ones."""
        lost = (said.job_id, said.attempt - 1)
        owner = next((w for w in self.workers if lost in w.finished and w.alive), None)
        why = [line.text for line in self.store.story(said.job_id) if line.what == JobState.QUEUED]
        if owner is not None and not self.reordered and "does not hold it any more" in why[-1]:
            self.violate(f"{owner.name} had finished {lost} and lives, yet it is run again: {self.tell(said.job_id)}")

    def crash_broker(self) -> None:
        if self.broker_up:
            self.broker_up = False
            self.inbox.clear()
            self.requests.clear()
            self.store = self.store.crash()
            self.clock.after(self.rng.randint(100, 4_000), self.start_broker)

    # ---- workers and clients

    def start_worker(self, index: int) -> ModelWorker:
        session = f"{self.rng.getrandbits(128):032x}"
        name = f"gpu-{index}"

        def send(message: Any) -> None:
            self.net.carry(name, "broker", lambda: self.arrive(FromWorker(session, message)))

        started = self._make_worker(name, session, self.comfys[index], clock=self.clock, rng=self.rng, send=send)
        self.by_session[session] = started
        return started

    def arrive(self, event: FromWorker) -> None:
        if self.broker_up:
            self.inbox.append(event)
            self.ask_turn()

    def tick_workers(self) -> None:
        for index, present in enumerate(self.workers):
            present.look()
            if not present.alive and index not in self.removed:
                self.workers[index] = self.start_worker(index)
        self.clock.after(100, self.tick_workers)

    def submit(self, number: int) -> None:
        """Ask until told: a client repeats a submit that was not answered."""
        job_id = f"00000000-0000-0000-0000-{number:012x}"
        if job_id in self.accepted:
            return
        request = client.Submit(
            request_id=f"{number:032x}", job_id=job_id, idempotency_key=f"k{number}", owner="o", title="", template="",
            labels=(), priority=number % 3, needs=NEEDS, pin="", deadline_ms=None,
            wait_for_worker=True, files=(), text="", parts=(), workflow=b"{}", form=b"",
        )  # fmt: skip
        self.ask(request)
        self.clock.after(3_000, lambda: self.submit(number))

    def cancel_one(self) -> None:
        job_id = f"00000000-0000-0000-0000-{self.rng.randrange(JOBS):012x}"
        self.ask(client.Cancel(request_id="c" * 32, job_id=job_id))

    def ask(self, request: Any) -> None:
        def arrive() -> None:
            if self.broker_up:
                self.requests.append(FromClient("c" * 32, request))
                self.ask_turn()

        self.net.carry("client", "broker", arrive)

    # ---- what goes wrong

    def faults(self) -> list[Callable[[], None]]:
        return [
            self.crash_broker, self.pause_broker, self.kill_worker, self.kill_comfy, self.remove_worker,
            self.pause_worker, self.storm, self.calm, self.partition, self.one_way,
        ]  # fmt: skip

    def kill_worker(self) -> None:
        victim = self.rng.choice(self.workers)
        victim.alive = False

    def kill_comfy(self) -> None:
        """The container dies with the worker beside it: the prompts are gone too."""
        index = self.rng.randrange(WORKERS)
        self.workers[index].alive = False
        self.comfys[index].prompts.clear()

    def remove_worker(self) -> None:
        """A container is taken away for good; the first one always stays."""
        index = self.rng.randrange(1, WORKERS)
        self.removed.add(index)
        self.workers[index].alive = False

    def pause_worker(self) -> None:
        victim = self.rng.choice(self.workers)
        victim.paused_until_ms = self.clock.now_ms + self.rng.randint(500, 25_000)

    def pause_broker(self) -> None:
        self.broker_paused_until_ms = self.clock.now_ms + self.rng.randint(500, 30_000)
        self.clock.at(self.broker_paused_until_ms, self.take_turn)

    def storm(self) -> None:
        self.net.weather.loss = self.rng.choice([0.01, 0.05, 0.2])
        self.net.weather.doubled = self.rng.choice([0.0, 0.1])
        self.net.weather.late = self.rng.choice([0.0, 0.1, 0.5])
        self.reordered |= self.net.weather.late > 0
        self.net.weather.late_ms = self.rng.choice([50, 500, 4_000])

    def calm(self) -> None:
        self.net.weather = Weather()

    def partition(self) -> None:
        victim = self.rng.choice(self.workers)
        self.net.weather.cut |= {(victim.name, "broker"), ("broker", victim.name)}

    def one_way(self) -> None:
        victim = self.rng.choice(self.workers)
        self.net.weather.cut.add(self.rng.choice([(victim.name, "broker"), ("broker", victim.name)]))

    def heal(self) -> None:
        self.calm()
        self.broker_paused_until_ms = 0
        for present in self.workers:
            present.paused_until_ms = 0
