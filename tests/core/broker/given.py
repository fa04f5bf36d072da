"""A fleet for the core's tests, and short words for what happens to it: events in, a step out.

`Given` stands where the broker's turn and store stand: it keeps what was written, hands back what the store would know,
and holds every step to the promises of the core and to the contract on the wire. Time moves only when told to.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Final

from broker.core import submits
from broker.core.backlog import Backlog, Lane
from broker.core.estimates import work
from broker.core.events import Event, FromClient, FromWorker, Tick, Unreachable
from broker.core.fairness import Fairness
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.jobs import Job, Jobs
from broker.core.model import JobRecord
from broker.core.rules import Now, Rules
from broker.core.step import AddStory, DeleteJob, Remember, SaveFigure, Send, Step
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.codec import BROKER_TO_CLIENT, BROKER_TO_WORKER, EVENTS, decode, encode
from broker.protocol.records import (
    Failure,
    Gpu,
    Held,
    JobState,
    Needs,
    Output,
    Phase,
    Progress,
    ProgressKind,
    Reason,
    Stats,
    Timings,
    WorkerState,
)
from broker.protocol.story import StoryLine

UTC_MS: Final = 1_700_000_000_000
STREAM: Final = "5" * 32
DIGEST: Final = "d" * 64
CLIENT: Final = "c" * 32
REQUEST: Final = "e" * 32
NEEDS: Final = Needs(nodes=("KSampler",), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="s")
TIMINGS: Final = Timings(staging_ms=1, waiting_ms=2, running_ms=3, loading_ms=0, finishing_ms=4)
OUTPUT: Final = Output(
    node_id="9", name="a.png", kind="output", media_type="image/png", sha256="f" * 64, size_bytes=7
)  # fmt: skip
STATS: Final = Stats(
    gpu_busy=0.5, vram_free_bytes=1, vram_total_bytes=2, gpu_celsius=60, gpu_watts=300, ram_free_bytes=1,
    ram_total_bytes=2, disk_free_bytes=3, cpu_busy=0.1, comfy_queue=0, comfy_fault="",
)  # fmt: skip

#: A List that leaves nothing out.
ALL_JOBS: Final[dict[str, Any]] = {
    "owner": "", "states": (), "template": "", "label": "", "group": "", "since_utc_ms": None, "until_utc_ms": None,
    "text": "", "after": "", "limit": 200,
}  # fmt: skip


#: A lane whose workers can run everything that is not pinned.
ANYWHERE: Final = Lane((DIGEST, (), 0))


def jobs_of(counts: dict[JobState, int], last_sequence: int, **rules: Any) -> Jobs:
    """The jobs of a core that has no workers."""
    return Jobs(counts, last_sequence, Backlog(lambda kind, group: True, Fairness({}), work), **rules)


def drained(backlog: Backlog) -> list[str]:
    """Every job that is not pinned, in the order in which they would go out."""
    order = []
    while group := backlog.next_in(ANYWHERE):
        order.append(backlog.first_of(group)[2])
        backlog.discard(order[-1])
    return order


def job_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def session_id(number: int) -> str:
    return f"a{number:031x}"


def because(reason: Reason, text: str = "as the test has it") -> Failure:
    return Failure(reason=reason, text=text, node_id="", node_type="", traceback="")


def record(number: int = 1, **changes: Any) -> JobRecord:
    """A job as the store holds it; queued, unless told otherwise."""
    plain = JobRecord(
        job_id=job_id(number), sequence=number, owner="ann", idempotency_key="", body_sha256="0" * 64, title="",
        template="", labels=(), priority=0, needs=NEEDS, files=(), created_utc_ms=UTC_MS,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def submit_of(number: int = 1, **changes: Any) -> client.Submit:
    plain = client.Submit(
        request_id=REQUEST, job_id=job_id(number), idempotency_key="", owner="ann", title="", template="", labels=(),
        priority=0, needs=NEEDS, pin="", deadline_ms=None,
        wait_for_worker=True, files=(), text="", parts=(), workflow=b"{}", form=b"",
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


@dataclasses.dataclass
class Session:
    """One process life of a worker, seen from outside."""

    given: Given
    name: str
    session: str
    capabilities: str = DIGEST
    #: Whether its ComfyUI has ever answered.
    met: bool = True
    vram_bytes: int = 8 << 30
    labels: tuple[str, ...] = ()
    key_name: str = ""
    restartable: bool = False
    #: Of the newest Ready.
    serial: int = 0
    #: What the broker sent, in order.
    got: list[Any] = dataclasses.field(default_factory=list)

    def says(self, message: Any) -> Step:
        return self.given.hears(self.session, message, self.key_name)

    def announces(self, *held: Held) -> Step:
        return self.says(self.introduction(*held))

    def introduction(self, *held: Held) -> wire.Announce:
        return wire.Announce(
            worker=self.name, session=self.session, version="1", comfyui_version="0.3.64", simulated=True,
            capabilities=self.capabilities if self.met else None,
            gpu=Gpu(name="card", kind="cuda", vram_total_bytes=self.vram_bytes),
            labels=self.labels, restartable=self.restartable, held=held,
        )  # fmt: skip

    def offers(self, *nodes: str, models: tuple[str, ...] = ()) -> Step:
        return self.says(wire.Capabilities(digest=self.capabilities, nodes=nodes, models=models))

    def has_room(self, credits: int = 1, *, seen: int | None = None) -> Step:
        self.serial += 1
        return self.says(wire.Ready(serial=self.serial, credits=credits, seen=self.seen if seen is None else seen))

    def beats(self, *held: Held, **stats: Any) -> Step:
        return self.says(wire.Heartbeat(stats=dataclasses.replace(STATS, **stats), held=held))

    def accepts(self, job: str, attempt: int = 1, prompt_id: str = "p") -> Step:
        return self.says(wire.Accepted(job_id=job, attempt=attempt, prompt_id=prompt_id))

    def completes(self, job: str, attempt: int = 1) -> Step:
        return self.says(wire.Complete(job_id=job, attempt=attempt, outputs=(OUTPUT,), timings=TIMINGS))

    def fails(self, job: str, reason: Reason, attempt: int = 1, text: str = "as the test has it") -> Step:
        return self.says(wire.Fail(job_id=job, attempt=attempt, failure=because(reason, text), timings=TIMINGS))

    def reports(self, job: str, serial: int, kind: ProgressKind = ProgressKind.STEP, attempt: int = 1) -> Step:
        return self.says(report(job, serial, kind, attempt))

    @property
    def seen(self) -> int:
        """The newest dispatch it has seen since the newest Welcome."""
        seen = 0
        for message in self.got:
            seen = 0 if isinstance(message, wire.Welcome) else max(seen, getattr(message, "serial", 0))
        return seen

    @property
    def dispatched(self) -> list[tuple[str, int]]:
        return [(m.job_id, m.attempt) for m in self.got if isinstance(m, wire.Dispatch)]

    @property
    def last(self) -> Any:
        return self.got[-1] if self.got else None

    @property
    def state(self) -> WorkerState:
        return self.given.fleet.roster.by_name[self.name].state


def report(job: str, serial: int, kind: ProgressKind, attempt: int) -> wire.ProgressReport:
    progress = Progress(kind=kind, node_id="3", node_type="KSampler", value=4, most=20, fraction=0.2, text="")
    preview = kind is ProgressKind.PREVIEW
    return wire.ProgressReport(
        job_id=job, attempt=attempt, serial=serial, progress=progress, media_type="image/jpeg" if preview else "",
        image=b"jpeg" if preview else b"",
    )  # fmt: skip


def held(job: str, attempt: int = 1, phase: Phase = Phase.RUNNING) -> Held:
    return Held(job_id=job, attempt=attempt, phase=phase)


class Given:
    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules if rules is not None else Rules()
        self.now_ms = 0
        self.jitter = 0.5
        #: What the store would hold.
        self.records: dict[str, JobRecord] = {}
        self.story: dict[str, list[StoryLine]] = {}
        self.notes: dict[str, str] = {}
        self.sessions: dict[str, Session] = {}
        self.replies: list[Any] = []
        self.published: list[Any] = []
        self.start()

    def start(self, stream: str = STREAM) -> None:
        """A new process life of the broker on the same store."""
        counts = {state: 0 for state in JobState}
        for one in self.records.values():
            counts[one.state] += 1
        last = max((one.sequence for one in self.records.values()), default=0)
        self.fleet = Fleet(
            self.rules, stream, jitter=lambda: self.jitter, counts=counts, last_sequence=last, now=self.now
        )  # fmt: skip
        live = [one for one in self.records.values() if not one.state.terminal]
        self.fleet.recover(live, {key: value for key, value in self.notes.items() if value}, [], self.now)
        check(self.fleet)

    @property
    def now(self) -> Now:
        return Now(mono_ms=self.now_ms, utc_ms=UTC_MS + self.now_ms)

    # ---- what happens

    def happens(self, event: Event) -> Step:
        """Give the core one event; keep what it wrote, deliver what it sent, hold it to its promises."""
        step = self.fleet.handle(event, self.now)
        step.published = self.fleet.publish(step.published)
        check(self.fleet)
        for write in step.writes:
            if isinstance(write, Remember):
                self.notes[write.key] = write.value
            elif isinstance(write, AddStory):
                self.story.setdefault(write.job_id, []).append(write.line)
            elif isinstance(write, DeleteJob):
                del self.records[write.job_id], self.story[write.job_id]
            elif not isinstance(write, SaveFigure):
                self.records[write.record.job_id] = write.record
        for send in step.sends:
            assert_carried(send.message, BROKER_TO_WORKER)
            if send.session in self.sessions:
                self.sessions[send.session].got.append(send.message)
        for reply in step.replies:
            assert_carried(reply.message, BROKER_TO_CLIENT)
        for message in step.published:
            assert_carried(message, EVENTS)
        self.replies += [reply.message for reply in step.replies]
        self.published += step.published
        return step

    def hears(self, session: str, message: Any, key_name: str = "") -> Step:
        stored = None
        if isinstance(message, (wire.Complete, wire.Fail)) and message.job_id not in self.fleet.jobs.live:
            stored = self.records.get(message.job_id)
        return self.happens(FromWorker(session, message, key_name, stored))

    def asks(self, message: Any) -> Any:
        """A request of a client; the answer comes back."""
        stored = self.records.get(getattr(message, "job_id", ""))
        if isinstance(message, client.Submit):
            ids = (self.records.get(part.job_id) for part in message.parts)
            stored = next((one for one in ids if one is not None), stored)
            groups = (r for r in self.records.values() if r.group is not None)
            stored = stored or next((r for r in groups if r.group and r.group.group_id in submits.ids(message)), None)
            if message.idempotency_key:
                same = (r for r in self.records.values() if r.idempotency_key == message.idempotency_key)
                stored = next((r for r in same if r.owner == message.owner), stored)
        step = self.happens(FromClient(CLIENT, message, stored))
        (reply,) = step.replies
        assert reply == Send(CLIENT, reply.message)
        assert reply.message.request_id == message.request_id
        return reply.message

    def unreachable(self, session: Session) -> Step:
        return self.happens(Unreachable(session.session))

    def tick(self) -> Step:
        return self.happens(Tick())

    def passes(self, wait_ms: int, *sessions: Session, beat_ms: int = 2_000) -> None:
        """Time passes, turn by turn; the sessions given beat meanwhile, with what they hold."""
        end_ms = self.now_ms + wait_ms
        beat_due_ms = self.now_ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + max(1, self.fleet.sleep_ms(self.now_ms)))
            if self.now_ms >= beat_due_ms:
                beat_due_ms = self.now_ms + beat_ms
                for session in sessions:
                    session.beats(*(held(job.record.job_id, job.record.attempt) for job in self.held_by(session)))
            self.tick()

    # ---- in one word

    def worker(self, name: str, number: int | None = None, **facts: Any) -> Session:
        """A worker's process that has said nothing yet."""
        made = Session(self, name, session_id(len(self.sessions) + 1 if number is None else number), **facts)
        self.sessions[made.session] = made
        return made

    def joined(self, name: str, credits: int = 1, **facts: Any) -> Session:
        """A worker that announced itself, can run NEEDS and has room."""
        made = self.worker(name, **facts)
        made.announces()
        made.offers(*NEEDS.nodes)
        if credits:
            made.has_room(credits)
        return made

    def submitted(self, number: int = 1, **changes: Any) -> str:
        reply = self.asks(submit_of(number, **changes))
        assert isinstance(reply, client.JobReply), reply
        return reply.job.job_id

    def leased(self, session: Session, number: int = 1, **changes: Any) -> str:
        """A job that was just sent to this worker, which has room."""
        job = self.submitted(number, **changes)
        self.tick()
        assert session.dispatched[-1][0] == job, f"{session.name} was not sent {job}"
        return job

    def running(self, session: Session, number: int = 1, **changes: Any) -> str:
        job = self.leased(session, number, **changes)
        session.accepts(job)
        return job

    def in_state(self, state: JobState, session: Session, number: int = 1, **changes: Any) -> str:
        """A job in this state, by the shortest way; the worker given has room."""
        job = self.submitted(number, **changes)
        if state not in (JobState.QUEUED, JobState.CANCELLED):
            self.tick()
            if state is not JobState.LEASED:
                session.accepts(job)
        match state:
            case JobState.CANCELLED | JobState.CANCELLING:
                self.cancels(job)
            case JobState.SUCCEEDED:
                session.completes(job)
            case JobState.FAILED:
                session.fails(job, Reason.NODE_ERROR)
        assert self.state(job) is state
        return job

    def cancels(self, job: str) -> Any:
        return self.asks(client.Cancel(request_id=REQUEST, job_id=job))

    def retries(self, job: str) -> Any:
        return self.asks(client.Retry(request_id=REQUEST, job_id=job))

    # ---- what is

    def job(self, job: str) -> Job:
        return self.fleet.jobs.live[job]

    def state(self, job: str) -> JobState:
        return self.records[job].state

    def held_by(self, session: Session) -> Iterator[Job]:
        known = self.fleet.roster.by_session.get(session.session)
        return iter(list(known.jobs.values()) if known is not None else [])

    def told(self, job: str) -> list[str]:
        """The states of a job's story, in order."""
        return [line.what for line in self.story[job]]


@functools.lru_cache(maxsize=4_096)
def assert_carried(message: Any, role: frozenset[int]) -> None:
    """The message survives the wire, in the role of whoever sends it."""
    if isinstance(message, wire.Dispatch):
        message = dataclasses.replace(message, workflow=b"{}")
    if getattr(message, "stream", None) is not None:
        assert message.stream and message.serial, f"{type(message).__name__} left without its place in the stream"
    assert decode(encode(message), role) == message
