"""A whole fleet in one thread: broker, model workers, a client that records what it was told, and what goes wrong.

`World(seed).run()` returns the violations it found, as sentences; none is the expected answer. `report(seed)` makes a
failing seed's story short.
"""

from __future__ import annotations

import functools
import hashlib
import random
from typing import Any

from broker.core.events import FromClient, FromWorker
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.jobs import InvalidTransition
from broker.core.rules import Now
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.errors import StoreError
from broker.protocol.records import JobState, Needs, Reason
from broker.store.memory import MemoryStore
from broker.turn import FILES_MS, Outbound, Turn
from tests.core.simulation.faults import DAY_MS, Faults
from tests.core.simulation.model_worker import Comfy, ModelWorker
from tests.core.simulation.net import Clock, Net
from tests.core.simulation.plan import JOBS, STORM_MS, Happening, id_of, plan, rules, shrunk
from tests.core.simulation.stores import FailingStore, SlowStore

#: Longer than what a healed fleet needs: leases, backoff, probes, limits of phases, three attempts of the longest.
SETTLE_MS = 400_000
#: By then heartbeats have shown both sides what the other one believes.
AGREE_MS = 6_000
NEEDS = Needs(nodes=("N",), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="s")
WORKERS = 3
GIB = 1 << 30
#: The memory of each card; every fourth job does not fit the smallest, whatever it says.
CARDS = (8 * GIB, 16 * GIB, 24 * GIB)


class World:
    def __init__(
        self,
        seed: int,
        happenings: tuple[Happening, ...] | None = None,
        *,
        make_fleet: type[Fleet] = Fleet,
        make_turn: type[Turn] = Turn,
        make_worker: type[ModelWorker] = ModelWorker,
    ) -> None:
        self.happenings = plan(seed) if happenings is None else happenings
        self.rules = rules(seed)
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
        #: What is durable in the broker's store of files, whatever becomes of the broker.
        self.files: set[str] = set()
        #: The job that each submit was told of, by its key; jobs that somebody may have deleted.
        self.told: dict[str, str] = {}
        self.deleting: set[str] = set()
        self.groups: dict[str, tuple[client.Part, ...]] = {}
        self.dispatched: dict[str, set[int]] = {}
        self.offered: dict[str, wire.Ready] = {}
        #: How long turns have followed one another in time; and when, by that time, each session was last heard.
        self.awake_ms = self.turned_ms = 0
        self.heard_ms: dict[str, int] = {}
        #: Whether the network has ever changed the order of messages; TCP does not, a reconnect may.
        self.reordered = False
        #: Jobs that kill whatever begins them, and how often each did.
        self.deadly: dict[str, int] = {}
        self.comfys = [Comfy(self.clock, self.rng, vram_bytes, self.deadly) for vram_bytes in CARDS]
        self.workers: list[ModelWorker] = []
        self.removed: set[int] = set()
        self.by_session: dict[str, ModelWorker] = {}
        #: Second processes under a worker's name, each with its index.
        self.twins: list[ModelWorker] = []
        self.twin_of: dict[str, int] = {}
        self.faults = Faults(self)
        self.next_commit_fails = False
        self.disk_full = False
        #: How long a commit takes, and until when the broker waits for one.
        self.commit_ms = 0
        self.committing_until_ms = 0
        self.broker_back_ms = 0
        #: Workers whose heartbeats are lost; whose uploads are; whose next Ready is late, and by how much.
        self.beatless: set[str] = set()
        self.fileless: set[str] = set()
        self.late_ready_ms: dict[str, int] = {}
        self.want_resumed = False
        self.healed = False
        #: What the wall clock is ahead of the truth.
        self.utc_ahead_ms = 0

    # ---- the run

    def run(self) -> list[str]:
        try:
            self._run()
        except (AssertionError, InvalidTransition, KeyError, IndexError, ValueError) as e:
            self.violate(f"{type(e).__name__}: {e}")
        return self.violations

    def _run(self) -> None:
        self.start_broker()
        for index in range(WORKERS):
            self.workers.append(self.start_worker(index))
        for number in range(JOBS):
            self.clock.at(self.rng.randint(0, STORM_MS // 2), functools.partial(self.submit, number))
        for one in self.happenings:
            self.clock.at(one.at_ms, functools.partial(self.faults.strike, one.what, one.draw))
        self.tick_workers()
        self.clock.run_until(STORM_MS)
        self.healed = True
        self.faults.heal()
        self.clock.run_until(max(STORM_MS, self.broker_back_ms))
        for _ in range(SETTLE_MS // 1_000):
            self.clock.run_until(self.clock.now_ms + 1_000)
            if self.want_resumed:
                self.ask(client.Resume(request_id="f" * 32, worker=""))
            if self.violations or self.all_over():
                break
        self.judge()
        self.clock.run_until(self.clock.now_ms + AGREE_MS)
        self.judge_rooms()

    def all_over(self) -> bool:
        live = next(self.store.live(), None)
        gone = sum(1 for job_id in self.deleting & self.accepted if self.store.is_deleted(job_id))
        return live is None and not self.inbox and len(self.accepted) == len(self.recorded_states()) + gone

    def judge_rooms(self) -> None:
        for worker in self.workers:
            known = self.turn.fleet.roster.by_session.get(worker.session)
            ready = known.ready.serial if known is not None and known.ready is not None else 0
            if known is not None and worker.alive and ready < worker.beat_serial:
                self.violate(f"{worker.name} spoke of its room {worker.beat_serial} times, the broker knows of {ready}")

    def judge(self) -> None:
        states = self.recorded_states()
        for job_id in sorted(self.accepted):
            state = states.get(job_id)
            if state is None and self.store.is_deleted(job_id) and job_id in self.deleting:
                continue
            if state is None:
                self.violate(f"job {job_id} was accepted and is gone")
            elif not state.terminal:
                self.violate(f"job {job_id} is stuck as {state}: {self.tell(job_id)}")
        for job_id, deaths in self.deadly.items():
            unblamed = sum(line.text.startswith(("taken back", Reason.DRAINING)) for line in self.store.story(job_id))
            if deaths > self.rules.max_attempts + unblamed:
                self.violate(f"job {job_id} has killed {deaths} workers: {self.tell(job_id)}")

    def recorded_states(self) -> dict[str, JobState]:
        found = {job_id: self.store.job(job_id) for job_id in self.accepted}
        return {job_id: record.state for job_id, record in found.items() if record is not None}

    def tell(self, job_id: str) -> str:
        return " / ".join(f"{line.what} {line.attempt} {line.worker} {line.text}" for line in self.store.story(job_id))

    def violate(self, text: str) -> None:
        self.violations.append(f"{self.clock.now_ms} ms: {text}")

    # ---- broker

    def now(self) -> Now:
        return Now(mono_ms=self.clock.now_ms, utc_ms=10 * DAY_MS + self.utc_ahead_ms + self.clock.now_ms)

    def start_broker(self) -> None:
        self.lives += 1
        self.offered.clear()
        self.heard_ms.clear()
        fleet = self._make_fleet(
            self.rules,
            f"{self.lives:032x}",
            jitter=self.rng.random,
            counts=self.store.counts(),
            last_sequence=self.store.last_sequence(),
            now=self.now(),
        )
        fleet.recover(self.store.live(), self.store.notes(), self.store.figures(), self.now())
        self.turn = self._make_turn(fleet, self.store, self.files.__contains__, lambda: self.disk_full)
        self.broker_up = True
        self.keep_turning(self.lives)

    def keep_turning(self, life: int) -> None:
        if not self.broker_up or life != self.lives:
            return
        wait_ms = max(self.broker_paused_until_ms, self.committing_until_ms) - self.clock.now_ms
        if wait_ms <= 0:
            self.take_turn()
            wait_ms = self.turn.sleep_ms(self.clock.now_ms)
        self.clock.after(max(1, wait_ms), lambda: self.keep_turning(life))

    def ask_turn(self) -> None:
        """Messages that arrive within a few milliseconds share a turn."""
        if not self.turn_asked:
            self.turn_asked = True
            self.clock.after(self.rng.randint(0, 5), self.take_turn)

    def take_turn(self) -> None:
        self.turn_asked = False
        if not self.broker_up or self.clock.now_ms < max(self.broker_paused_until_ms, self.committing_until_ms):
            return
        heard, self.inbox = self.inbox, []
        asked, self.requests = self.requests, []
        self.awake_ms += min(self.clock.now_ms - self.turned_ms, self.rules.turn_ms)
        self.turned_ms = self.clock.now_ms
        for event in heard:
            self.note_heard(event)
        before = dict(self.turn.fleet.jobs.live)
        try:
            out = self.turn.take(heard, asked, self.commit_or_fail())
        except StoreError:
            self.crash_broker()
            return
        check(self.turn.fleet)
        self.note_silent()
        self.note_ends(before)
        for send in out.to_workers:
            if isinstance(send.message, wire.Dispatch):
                self.note_dispatch(send.session, send.message)
        if self.commit_ms and isinstance(self.store, SlowStore) and self.store.committed:
            self.committing_until_ms = self.clock.now_ms + self.commit_ms
            self.clock.at(self.committing_until_ms, functools.partial(self.deliver_late, self.lives, out))
        else:
            self.deliver(out)
        if self.rng.random() < self.crash_chance():
            self.crash_broker()

    def commit_or_fail(self) -> Now:
        """The time of a turn; in a while its commit fails, before or after it is durable."""
        if self.next_commit_fails:
            self.next_commit_fails = False
            self.store = FailingStore.of(self.store)
            self.store.durable = self.rng.random() < 0.5
        elif self.commit_ms:
            self.store = SlowStore.of(self.store)
            self.store.committed = False
        self.turn.store = self.store
        return self.now()

    def crash_chance(self) -> float:
        return 0.002 if self.clock.now_ms < STORM_MS else 0.0

    def note_heard(self, event: FromWorker) -> None:
        said = event.message
        self.heard_ms[event.session] = self.awake_ms
        if isinstance(said, wire.Ready):
            newest = self.offered.get(event.session)
            if newest is None or said.serial > newest.serial:
                self.offered[event.session] = said
        if isinstance(said, wire.Announce):
            self.offered.pop(event.session, None)

    def note_silent(self) -> None:
        """Nobody is believed present whose lease is over; the core hears a result only once its files are there."""
        for session, present in self.turn.fleet.roster.by_session.items():
            silent_ms = self.awake_ms - self.heard_ms[session]
            if silent_ms > self.rules.lease_ms + FILES_MS:
                self.violate(f"{present.name} was silent for {silent_ms} ms and is believed to hold {[*present.jobs]}")

    def note_ends(self, before: dict[str, Any]) -> None:
        """Every job that became terminal in this turn: once, and with the leased attempt's own result."""
        for job_id in before.keys() - self.turn.fleet.jobs.live.keys():
            record = self.store.job(job_id)
            if record is None and job_id in self.deleting:
                continue
            assert record is not None
            if record.state is not JobState.SUCCEEDED:
                continue
            result = record.outputs[0].name
            if job_id in self.recorded:
                self.violate(f"job {job_id} recorded twice: {self.recorded[job_id]} and {result}")
            self.recorded[job_id] = result
            if record.outputs[0].sha256 not in self.files:
                self.violate(f"job {job_id} recorded with {result}, which is not stored")
            if result != f"{record.worker}-{record.attempt}.png":
                self.violate(f"job {job_id} attempt {record.attempt} on {record.worker} recorded {result}")

    def deliver_late(self, life: int, out: Outbound) -> None:
        """What was to leave after a slow commit, unless the broker died over it."""
        if self.broker_up and life == self.lives:
            self.deliver(out)

    def deliver(self, out: Outbound) -> None:
        for send in (*out.to_workers, *out.recorded):
            self.trace.update(f"{self.clock.now_ms}{send.session}{send.message}".encode())
            target = self.by_session.get(send.session)
            if target is not None:
                self.net.carry("broker", target.name, functools.partial(target.hear, send.message))
        for reply in out.to_clients:
            self.trace.update(f"{self.clock.now_ms}{reply.message}".encode())
            if isinstance(reply.message, client.JobReply):
                self.note_told(reply.message)
            if isinstance(reply.message, client.GroupReply):
                self.accepted |= {part.job_id for part in self.groups[reply.message.group_id]}
            if isinstance(reply.message, client.Done) and reply.message.request_id == "f" * 32:
                self.want_resumed = False

    def note_told(self, said: client.JobReply) -> None:
        """One key, one job, however often and under whatever id it is submitted."""
        self.accepted.add(said.job.job_id)
        if int(said.request_id, 16) < JOBS:
            first = self.told.setdefault(said.request_id, said.job.job_id)
            if first != said.job.job_id:
                self.violate(f"one key was told of two jobs: {first} and {said.job.job_id}")

    def note_dispatch(self, session: str, said: wire.Dispatch) -> None:
        earlier = self.dispatched.setdefault(said.job_id, set())
        if said.attempt in earlier:
            self.violate(f"job {said.job_id} attempt {said.attempt} dispatched twice")
        if said.job_id in self.recorded:
            self.violate(f"job {said.job_id} dispatched after its result was recorded")
        earlier.add(said.attempt)
        roster = self.turn.fleet.roster
        holder = roster.by_session.get(session)
        if holder is None or not roster.may_work(holder) or roster.fleet_paused or self.disk_full:
            self.violate(f"{said.job_id} dispatched to {holder and holder.name}, which may not be sent work now")
        self.note_unfit(session, said)
        self.note_wasted(said)
        ready = self.offered.get(session)
        unseen = [
            job
            for job in self.turn.fleet.jobs.live.values()
            if job.session == session and ready is not None and job.dispatch_serial > ready.seen
        ]
        if ready is None or len(unseen) > ready.credits:
            self.violate(f"{said.job_id} dispatched to a session that offered {ready}, {len(unseen)} unseen there")

    def note_unfit(self, session: str, said: wire.Dispatch) -> None:
        """Only to a worker that has the node, is the one it is pinned to, and has the memory it was found to need."""
        target, record = self.by_session[session], self.turn.fleet.jobs.live[said.job_id].record
        fits = target.comfy.vram_bytes >= record.least_vram_bytes
        if "N" not in target.nodes or record.pin not in ("", target.name) or not fits:
            self.violate(f"{said.job_id} dispatched to {target.name}, which has {target.nodes}: {record}")

    def note_wasted(self, said: wire.Dispatch) -> None:
        """A result that its living worker had in hand is not thrown away, unless old beats arrived after newer ones."""
        lost = (said.job_id, said.attempt - 1)
        owner = next((w for w in self.workers if lost in w.finished and w.alive), None)
        why = [line.text for line in self.store.story(said.job_id) if line.what == JobState.QUEUED]
        if owner is not None and not self.reordered and "does not hold it any more" in why[-1]:
            self.violate(f"{owner.name} had finished {lost} and lives, yet it is run again: {self.tell(said.job_id)}")

    def crash_broker(self, away_ms: int | None = None) -> None:
        if self.broker_up:
            self.broker_up = False
            self.inbox.clear()
            self.requests.clear()
            self.store = self.store.crash()
            self.committing_until_ms = 0
            self.broker_back_ms = self.clock.now_ms + (away_ms or self.rng.randint(100, 4_000))
            self.clock.at(self.broker_back_ms, self.start_broker)

    # ---- workers and clients

    def start_worker(self, index: int) -> ModelWorker:
        session = f"{self.rng.getrandbits(128):032x}"
        name = f"gpu-{index}"

        def send(message: Any) -> None:
            if name in self.beatless and isinstance(message, wire.Heartbeat):
                return
            carry = functools.partial(self.net.carry, name, "broker", lambda: self.arrive(FromWorker(session, message)))
            if name in self.late_ready_ms and isinstance(message, wire.Ready):
                self.clock.after(self.late_ready_ms.pop(name), carry)
            else:
                carry()

        def put(sha256: str) -> None:
            if name in self.fileless:
                return
            self.net.carry(
                name, "broker", lambda: self.clock.after(self.rng.randint(0, 50), lambda: self.store_file(sha256))
            )

        started = self._make_worker(
            name, session, self.comfys[index], clock=self.clock, rng=self.rng, send=send, put=put
        )
        self.by_session[session] = started
        return started

    def arrive(self, event: FromWorker) -> None:
        if self.broker_up:
            self.inbox.append(event)
            self.ask_turn()

    def store_file(self, sha256: str) -> None:
        if self.broker_up:
            self.files.add(sha256)
            self.ask_turn()

    def tick_workers(self) -> None:
        for index, present in enumerate(self.workers):
            present.look()
            if not present.alive and index not in self.removed:
                self.workers[index] = self.start_worker(index)
        for place, twin in enumerate(self.twins):
            twin.look()
            if not twin.alive:
                self.twins[place] = self.start_worker(self.twin_of.pop(twin.session))
                self.twin_of[self.twins[place].session] = self.comfys.index(self.twins[place].comfy)
        self.clock.after(100, self.tick_workers)

    def add_twin(self, index: int) -> None:
        twin = self.start_worker(index)
        self.twins.append(twin)
        self.twin_of[twin.session] = index

    def submit(self, number: int, parts: tuple[client.Part, ...] = ()) -> None:
        """Ask until told: a client repeats a submit that was not answered."""
        if f"{number:032x}" in self.told or (parts and parts[0].job_id in self.accepted):
            return
        self.groups[id_of(number)] = parts
        self.ask(self.request(number, parts))
        self.clock.after(3_000, lambda: self.submit(number, parts))

    def request(self, number: int, parts: tuple[client.Part, ...] = (), *, again: int | None = None) -> client.Submit:
        """again: the number of the id that it is submitted under, with the same key."""
        return client.Submit(
            request_id=f"{number:032x}", job_id=id_of(number if again is None else again),
            idempotency_key=f"k{number}", owner="o", title="", template="",
            labels=(), priority=number % 3, needs=NEEDS, pin="gpu-0" if number % 5 == 4 else "",
            deadline_ms=20_000 if number % 7 == 6 else None, wait_for_worker=True, files=(), text="",
            parts=parts, workflow=b"{}" * max(1, len(parts)), form=b"",
        )  # fmt: skip

    def delete(self, job_id: str) -> None:
        self.deleting.add(job_id)
        self.ask(client.Delete(request_id="a" * 32, job_id=job_id))

    def ask(self, request: Any) -> None:
        def arrive() -> None:
            if self.broker_up:
                self.requests.append(FromClient("c" * 32, request))
                self.ask_turn()

        self.net.carry("client", "broker", arrive)


def report(seed: int, **parts: Any) -> str:
    """A failing seed in the fewest words: what has to happen, and what comes of it."""

    def fails(happenings: tuple[Happening, ...]) -> bool:
        return bool(World(seed, happenings, **parts).run())

    happenings = shrunk(plan(seed), fails)
    found = World(seed, happenings, **parts).run()
    story = "\n".join(map(str, happenings)) if happenings else "  nothing goes wrong"
    return f"seed {seed}, of {len(plan(seed))} happenings these {len(happenings)} are enough:\n{story}\n{found[0]}"
