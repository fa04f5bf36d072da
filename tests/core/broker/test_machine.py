"""The broker's turn over a store that forgets, against workers and clients that may say anything at any time.

Any session ever opened may report any attempt ever sent to anybody, heartbeats may lie, the broker may die between
two turns or before a commit. After each turn the promises hold; at the end, one honest worker gets everything done.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from broker.core.events import FromClient, FromWorker, Unreachable
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.retry import VERDICTS
from broker.core.rules import Now, Rules
from broker.core.step import Send
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.codec import BROKER_TO_CLIENT, BROKER_TO_WORKER, EVENTS, decode, encode
from broker.protocol.errors import StoreError
from broker.protocol.events import JobChanged, JobPreview
from broker.protocol.records import Held, JobState, Phase, ProgressKind, Reason
from broker.protocol.story import StoryLine
from broker.store.memory import MemoryStore
from broker.turn import Outbound, Turn
from tests.core.broker.given import (
    ALL_JOBS,
    CLIENT,
    DIGEST,
    NEEDS,
    OUTPUT,
    STATS,
    TIMINGS,
    UTC_MS,
    Given,
    because,
    job_id,
    report,
    session_id,
    submit_of,
)  # fmt: skip

RULES = Rules(max_attempts=3, max_deaths=3)
NAMES = ["gpu-0", "gpu-1", "gpu-2"]
#: Whatever index is drawn, one of those there are is meant.
which = st.integers(0, 40)
texts = st.sampled_from(["", "a node raised", "é" * 4_000])
CAME_BACK = "its worker came back with it"
TAKEN_BACK = "taken back"
INTRODUCTION = Given().worker("gpu-0").introduction()


@dataclasses.dataclass
class Process:
    """One process life of a worker, as far as its broker can tell."""

    name: str
    session: str
    serial: int = 0
    seen: int = 0
    #: The newest room it spoke of since it announced itself.
    offered: wire.Ready | None = None


class Broker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.now_ms = self.lives = self.asked = 0
        self.heard: list[FromWorker | Unreachable] = []
        self.requests: list[FromClient] = []
        self.processes: list[Process] = []
        #: Every attempt ever sent, to which worker; and every job whose submit was answered.
        self.sent: dict[tuple[str, int], str] = {}
        self.accepted: set[str] = set()
        self.succeeded: dict[str, str] = {}
        #: Whether every turn so far kept its promises.
        self.sound = True
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.published = 0
        self.heard, self.requests = [], []
        counts, last = self.store.counts(), self.store.last_sequence()
        fleet = Fleet(
            RULES, f"{self.lives:032x}", jitter=lambda: 0.5, counts=counts, last_sequence=last, now=self.now
        )  # fmt: skip
        fleet.recover(self.store.live(), self.store.notes(), self.store.figures(), self.now)
        self.turn = Turn(fleet, self.store, lambda sha256: True)
        check(fleet)

    @property
    def now(self) -> Now:
        return Now(mono_ms=self.now_ms, utc_ms=UTC_MS + self.now_ms)

    # ---- the turn, and what must hold after it

    def take(self, *, thoroughly: bool = False) -> Outbound:
        self.sound = False
        heard, self.heard, requests, self.requests = self.heard, [], self.requests, []
        out = self.turn.take(heard, requests, self.now)
        check(self.turn.fleet)
        assert [r.message.request_id for r in requests] == [r.message.request_id for r in out.to_clients]
        for send in (*out.to_workers, *out.recorded):
            self.carried(send.message, BROKER_TO_WORKER)
            self.note_sent(send)
        for reply in out.to_clients:
            self.carried(reply.message, BROKER_TO_CLIENT)
            if isinstance(reply.message, client.JobReply):
                self.accepted.add(reply.message.job.job_id)
        for message in out.published:
            self.carried(message, EVENTS)
            if not isinstance(message, JobPreview):
                self.published += 1
                assert message.serial == self.published, "the stream has a gap"
        changed = {message.job.job_id for message in out.published if isinstance(message, JobChanged)}
        for known in self.accepted | changed if thoroughly else changed:
            self.judge(known)
        self.sound = True
        return out

    def carried(self, message: Any, role: frozenset[int]) -> None:
        assert decode(encode(message), role) == message

    def note_sent(self, send: Send) -> None:
        said = send.message
        process = next((p for p in self.processes if p.session == send.session), None)
        if process is not None and isinstance(said, wire.Welcome):
            process.seen = 0
        if not isinstance(said, wire.Dispatch):
            return
        assert process is not None and said.workflow == b"{}"
        process.seen = max(process.seen, said.serial)
        earlier = [attempt for job, attempt in self.sent if job == said.job_id]
        assert said.attempt == max(earlier, default=0) + 1, "an attempt was numbered twice"
        assert not self.store.is_deleted(said.job_id), "a deleted job was sent"
        assert said.job_id not in self.succeeded, "a job whose result is recorded was sent again"
        self.sent[said.job_id, said.attempt] = process.name
        known, offered = self.turn.fleet.roster.by_session[process.session], process.offered
        assert offered is not None, "work for a session that offered no room"
        unseen = [job for job in known.jobs.values() if job.dispatch_serial > offered.seen]
        assert len(unseen) <= offered.credits, "more work than there was room for"

    def judge(self, known: str) -> None:
        """A job is in the store and, while it lives, in the core: in one state, which its story ends in."""
        record, live = self.store.job(known), self.turn.fleet.jobs.live.get(known)
        if self.store.is_deleted(known):
            assert record is None and live is None, "a deleted job is there again"
            return
        assert record is not None, "a job that somebody was told of is gone"
        assert record.state.terminal == (live is None)
        if live is not None:
            assert dataclasses.replace(live.record, started_utc_ms=None) == dataclasses.replace(
                record, started_utc_ms=None
            )
        state, burnt = self.replayed(self.store.story(known))
        assert state == record.state
        if not record.state.terminal:
            assert burnt == record.burnt < RULES.max_attempts and record.deaths < RULES.max_deaths
        if record.state is JobState.SUCCEEDED:
            (output,) = record.outputs
            assert output.name == f"{record.worker} {record.attempt}", "not the leased attempt's result"
            assert self.sent[known, record.attempt] == record.worker
            assert self.succeeded.setdefault(known, output.name) == output.name, "a result was replaced"

    def replayed(self, story: tuple[StoryLine, ...]) -> tuple[str, int]:
        """The state and the burnt attempts that a story amounts to."""
        burnt, last = 0, ""
        for line in story:
            if line.what == JobState.QUEUED:
                last = line.text.partition(":")[0]
                if last != TAKEN_BACK:
                    burnt = burnt + VERDICTS[Reason(last)].burns if last in set(Reason) else 0
            elif line.text == CAME_BACK and last != TAKEN_BACK:
                burnt -= VERDICTS[Reason(last)].burns
        return story[-1].what, burnt

    # ---- what workers do

    def says(self, process: Process, message: Any, now: bool = True) -> None:
        if isinstance(message, wire.Ready | wire.Announce):
            process.offered = message if isinstance(message, wire.Ready) else None
        self.heard.append(FromWorker(process.session, message))
        if now:
            self.take()

    def process(self, index: int) -> Process:
        return self.processes[index % len(self.processes)]

    def attempt(self, index: int) -> tuple[str, int]:
        known = [(job_id(0), 1), *self.sent]
        return known[-1 - index % len(known)]  # the newest are drawn most often

    def some_held(self, indexes: list[int], phase: Phase) -> tuple[Held, ...]:
        attempts = dict.fromkeys(self.attempt(index) for index in indexes)
        return tuple(Held(job_id=job, attempt=n, phase=phase) for job, n in attempts)

    def truly_held(self, process: Process, phase: Phase) -> tuple[Held, ...]:
        known = self.turn.fleet.roster.by_session.get(process.session)
        jobs = list(known.jobs.values()) if known is not None else []
        return tuple(Held(job_id=j.record.job_id, attempt=j.record.attempt, phase=phase) for j in jobs)

    @initialize()
    def two_workers_and_three_jobs_are_there(self) -> None:
        for number in (1, 2, 3):
            self.client_submits(number, priority=0, key="", now=False)
        for name in NAMES[:2]:
            self.worker_starts(name)

    @rule(name=st.sampled_from(NAMES))
    def worker_starts(self, name: str) -> None:
        made = Process(name, session_id(len(self.processes) + 1))
        self.processes.append(made)
        self.announces(made, ())
        self.says(made, wire.Ready(serial=1, credits=2, seen=0))

    def announces(
        self, process: Process, held: tuple[Held, ...], now: bool = True, *, digest: str | None = DIGEST
    ) -> None:
        """digest: None of one whose ComfyUI has not answered yet; what it says of its abilities then counts nothing."""
        said = dataclasses.replace(INTRODUCTION, worker=process.name, session=process.session, held=held)
        said = dataclasses.replace(said, capabilities=digest)
        self.says(process, said, now=False)
        self.says(process, wire.Capabilities(digest=DIGEST, nodes=NEEDS.nodes, models=()), now)

    @rule(
        index=which,
        lies=st.lists(which, max_size=3),
        phase=st.sampled_from(Phase),
        now=st.booleans(),
        digest=st.sampled_from((DIGEST, DIGEST, None)),
    )
    def worker_announces_again(self, index: int, lies: list[int], phase: Phase, now: bool, digest: str | None) -> None:
        self.announces(self.process(index), self.some_held(lies, phase), now, digest=digest)

    @rule(index=which, name=st.sampled_from(NAMES))
    def worker_takes_another_name(self, index: int, name: str) -> None:
        """Not while the session is known under the first one."""
        self.take()
        process = self.process(index)
        before = self.turn.fleet.roster.by_session.get(process.session)
        self.announces(dataclasses.replace(process, name=name), ())
        after = self.turn.fleet.roster.by_session.get(process.session)
        if after is not None:
            assert before is None or after.name == before.name
            process.name, process.offered = after.name, after.ready

    @rule(index=which, phase=st.sampled_from(Phase))
    def worker_comes_back_with_what_its_name_was_sent(self, index: int, phase: Phase) -> None:
        process = self.process(index)
        mine = [i for i, name in enumerate(self.sent.values()) if name == process.name]
        self.announces(process, self.some_held(mine[-4:], phase))

    @rule(index=which, credits=st.sampled_from([0, 1, 2, 3, 2**31]), liar=st.booleans(), now=st.booleans())
    def worker_offers_room(self, index: int, credits: int, liar: bool, now: bool) -> None:
        process = self.process(index)
        process.serial += 1
        self.says(
            process, wire.Ready(serial=process.serial + 1, credits=credits, seen=2**53 if liar else process.seen), now
        )

    @rule(index=which, lies=st.lists(which, max_size=3), phase=st.sampled_from(Phase), true=st.booleans())
    def worker_beats(self, index: int, lies: list[int], phase: Phase, true: bool) -> None:
        process = self.process(index)
        held = self.truly_held(process, phase) if true else self.some_held(lies, phase)
        self.says(process, wire.Heartbeat(stats=STATS, held=held[:64]))

    @rule(index=which, attempt=which, now=st.booleans())
    def worker_accepts(self, index: int, attempt: int, now: bool) -> None:
        job, number = self.attempt(attempt)
        self.says(self.process(index), wire.Accepted(job_id=job, attempt=number, prompt_id=f"p{number}"), now)

    @rule(index=which, attempt=which, serial=st.integers(0, 3), kind=st.sampled_from(ProgressKind))
    def worker_reports(self, index: int, attempt: int, serial: int, kind: ProgressKind) -> None:
        job, number = self.attempt(attempt)
        self.says(self.process(index), report(job, serial, kind, number))

    @rule(index=which, attempt=which, now=st.booleans())
    def worker_completes(self, index: int, attempt: int, now: bool) -> None:
        self.completes(self.process(index), *self.attempt(attempt), now=now)

    def completes(self, process: Process, job: str, number: int, *, now: bool = True) -> None:
        output = dataclasses.replace(OUTPUT, name=f"{process.name} {number}")
        self.says(process, wire.Complete(job_id=job, attempt=number, outputs=(output,), timings=TIMINGS), now)

    @rule(index=which, attempt=which, reason=st.sampled_from(Reason), text=texts, now=st.booleans())
    def worker_fails(self, index: int, attempt: int, reason: Reason, text: str, now: bool) -> None:
        job, number = self.attempt(attempt)
        why = because(reason, text)
        self.says(self.process(index), wire.Fail(job_id=job, attempt=number, failure=why, timings=TIMINGS), now)

    @rule(index=which, word=st.sampled_from(["accepts", "completes", "fails"]), reason=st.sampled_from(Reason))
    def worker_tells_the_truth(self, index: int, word: str, reason: Reason) -> None:
        """The holder of some attempt says something of it."""
        holders = list(self.turn.fleet.roster.by_session.values())
        holder = holders[index % len(holders)] if holders else None
        if holder is None or not holder.jobs:
            return
        process = next(p for p in self.processes if p.session == holder.session)
        record = next(reversed(holder.jobs.values())).record
        job, number = record.job_id, record.attempt
        match word:
            case "accepts":
                self.says(process, wire.Accepted(job_id=job, attempt=number, prompt_id=f"p{number}"))
            case "completes":
                self.completes(process, job, number)
            case _:
                self.says(process, wire.Fail(job_id=job, attempt=number, failure=because(reason), timings=TIMINGS))

    @rule(index=which, goodbye=st.booleans())
    def worker_goes(self, index: int, goodbye: bool) -> None:
        self.says(self.process(index), wire.Leave(why="w" * 500) if goodbye else wire.Draining())

    @rule(index=which)
    def worker_cannot_be_reached(self, index: int) -> None:
        self.heard.append(Unreachable(self.process(index).session))

    # ---- what clients do

    def asks(self, kind: type[Any], now: bool = True, **about: Any) -> None:
        self.asked += 1
        self.requests.append(FromClient(CLIENT, kind(request_id=f"{self.asked:032x}", **about)))
        if now:
            self.take()

    @rule(number=st.integers(1, 8), priority=st.integers(-1, 1), key=st.sampled_from(["", "k"]), now=st.booleans())
    def client_submits(self, number: int, priority: int, key: str, now: bool) -> None:
        said = submit_of(number, priority=priority, idempotency_key=key, owner=["ann", "bob"][number % 2])
        self.asks(client.Submit, now, **{f.name: getattr(said, f.name) for f in dataclasses.fields(said)[1:]})

    @rule(
        kind=st.sampled_from([client.Cancel, client.Retry, client.Delete, client.Story]),
        number=st.integers(0, 8),
        now=st.booleans(),
    )
    def client_speaks_of_a_job(self, kind: type[Any], number: int, now: bool) -> None:
        self.asks(kind, now, job_id=job_id(number))

    @rule(number=st.integers(1, 8), worker=st.sampled_from([*NAMES, "", "nobody"]), priority=st.integers(-100, 100))
    def administrator_moves_a_job(self, number: int, worker: str, priority: int) -> None:
        self.asks(client.Pin, job_id=job_id(number), worker=worker)
        self.asks(client.Reorder, job_id=job_id(number), priority=priority)

    @rule(kind=st.sampled_from([client.Pause, client.Resume, client.Resume]), worker=st.sampled_from(["", *NAMES]))
    def administrator_pauses(self, kind: type[Any], worker: str) -> None:
        self.asks(kind, worker=worker)

    @rule(worker=st.sampled_from(NAMES))
    def administrator_drains(self, worker: str) -> None:
        self.asks(client.DrainWorker, worker=worker)

    @rule(recent=st.integers(0, 5))
    def somebody_looks(self, recent: int) -> None:
        self.asks(client.Snapshot, recent=recent)
        self.asks(client.List, **(ALL_JOBS | {"limit": 3}))

    # ---- time, and the end of processes

    @rule(seconds=st.sampled_from([1, 2, 6, 11, 700]))
    def time_passes(self, seconds: int) -> None:
        end_ms = self.now_ms + seconds * 1_000
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + max(1, self.turn.fleet.sleep_ms(self.now_ms)))
            self.take()

    @rule(late_ms=st.sampled_from([1, 500, 30_000]))
    def the_loop_is_late(self, late_ms: int) -> None:
        """Whoever was there before the lateness is there after it, with the attempts it had confirmed."""
        self.take()
        there = set(self.turn.fleet.roster.by_session)
        self.now_ms += RULES.turn_ms + late_ms
        nearly = {s for s, w in self.turn.fleet.roster.by_session.items() if self.due_soon(w.silent_by_ms)}
        self.take()
        assert there - nearly <= set(self.turn.fleet.roster.by_session)

    def due_soon(self, due_ms: int) -> bool:
        """Whether a time comes within the turn that was not late."""
        return due_ms <= self.turn.fleet._last_turn_ms + RULES.turn_ms

    @rule(before_the_commit=st.booleans())
    def broker_dies(self, before_the_commit: bool) -> None:
        if before_the_commit:
            self.store.commit = self.power_cut  # type: ignore[method-assign]
            with contextlib.suppress(StoreError):
                self.turn.take(self.heard, self.requests, self.now)
        self.store = self.store.crash()
        self.start()
        self.take(thoroughly=True)

    def power_cut(self) -> None:
        raise StoreError("the power went")

    def teardown(self) -> None:
        """Everybody falls silent but one honest worker: it gets everything done."""
        if not self.sound:
            return  # a promise is broken already; what follows would only hide which
        self.asks(client.Resume, worker="")
        honest = Process("honest", session_id(999))
        self.processes.append(honest)
        self.announces(honest, ())
        for _ in range(200):
            if not self.turn.fleet.jobs.live:
                break
            honest.serial += 1
            for pinned in [job.record for job in self.turn.fleet.jobs.live.values() if job.record.pin]:
                self.asks(client.Pin, False, job_id=pinned.job_id, worker="")
            self.says(honest, wire.Heartbeat(stats=STATS, held=self.truly_held(honest, Phase.RUNNING)), now=False)
            self.says(honest, wire.Ready(serial=honest.serial, credits=2, seen=honest.seen))
            for held in self.truly_held(honest, Phase.RUNNING):
                self.completes(honest, held.job_id, held.attempt)
            self.now_ms += 1_000
        stuck = Counter(job.record.state for job in self.turn.fleet.jobs.live.values())
        assert not stuck, f"jobs that never ended: {dict(stuck)}"
        self.take(thoroughly=True)


TestBroker = Broker.TestCase
TestBroker.settings = settings(max_examples=100, stateful_step_count=50)
