"""The live jobs: their records, what is volatile about them, and the one door through which a state changes.

A job is live from its submit to its terminal state; then the store alone knows it. Every change of state goes
through `move`, which holds it to the table and leaves the write, the story line and the event in the step.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Final

from broker.core.backlog import Backlog
from broker.core.model import JOB_MOVES, JobRecord
from broker.core.rules import Now
from broker.core.step import AddStory, DeleteJob, InsertJob, Step, UpdateJob
from broker.protocol.events import JobGone
from broker.protocol.records import JobState, JobView, Needs, Phase, Progress
from broker.protocol.story import Decision, StoryLine
from broker.protocol.value import replace

#: States in which a worker has the job.
HELD: Final = frozenset({JobState.LEASED, JobState.RUNNING, JobState.CANCELLING})


#: More prompts than a ComfyUI has.
MANY: Final = 2**53
#: Different needs remembered, so that jobs can share them, and how much they may be together: a usual one is 2 KB.
NEEDS_MOST: Final = 20_000
NEEDS_BYTES: Final = 40 << 20
#: What a name weighs beside its characters.
NAME_BYTES: Final = 60


class InvalidTransition(Exception):
    """The core tried a move its table forbids: our bug. Nothing was changed."""


@dataclasses.dataclass(slots=True)
class Job:
    """A live job: the durable record and what only matters while it lives."""

    record: JobRecord
    #: The session that holds the attempt; empty while queued, or while its worker is expected back.
    session: str = ""
    #: The dispatch serial of the attempt in its session.
    dispatch_serial: int = 0
    #: Whether the worker has shown that it knows of the attempt.
    confirmed: bool = False
    #: A dispatch or an offered resume must be confirmed by then.
    confirm_by_ms: int = 0
    #: Queued, but not to be dispatched before.
    not_before_ms: int = 0
    #: Heartbeats in a row in which a confirmed attempt was not named.
    missed_beats: int = 0
    phase: Phase | None = None
    #: It may not be in that phase any longer than until then, however well its worker beats.
    phase_by_ms: int = 0
    progress: Progress | None = None
    progress_serial: int = -1
    #: When the prompt began to run, on the core's clock; None before, and where nobody saw it.
    began_ms: int | None = None
    #: The models its worker was not believed to hold when it began, and how long the run alone was expected to take.
    cold: tuple[str, ...] = ()
    #: How many prompts of others may go before it in ComfyUI's queue, as far as its worker's heartbeats have told.
    behind: int = MANY
    #: How often it was taken back from a worker that had not begun it; and whether its owner has paid for the next one.
    moves: int = 0
    paid: bool = False
    #: How near its deadline is; see expiry.py.
    near: int = 0


def view(record: JobRecord, job: Job | None) -> JobView:
    """What clients see of a job, live or not."""
    return JobView(
        job_id=record.job_id,
        owner=record.owner,
        state=record.state,
        title=record.title,
        template=record.template,
        labels=record.labels,
        group=record.group,
        priority=record.priority,
        created_utc_ms=record.created_utc_ms,
        started_utc_ms=record.started_utc_ms,
        finished_utc_ms=record.finished_utc_ms,
        attempt=record.attempt,
        burnt=record.burnt,
        worker=record.worker,
        prompt_id=record.prompt_id,
        phase=job.phase if job is not None else None,
        progress=job.progress if job is not None else None,
        failure=record.failure,
        timings=record.timings,
        outputs=record.outputs,
        why=record.why,
        expect_ms=record.expect_ms,
        deadline_utc_ms=record.deadline_utc_ms,
        pin=record.pin,
    )


class Jobs:
    """Every live job, the counts of all jobs, and the backlog of the queued ones."""

    def __init__(
        self,
        counts: dict[JobState, int],
        last_sequence: int,
        backlog: Backlog,
        *,
        most_held: int = 0,
    ) -> None:
        """most_held: attempts of one owner that workers may hold; its other jobs wait. 0 = no bound."""
        self.live: dict[str, Job] = {}
        self.backlog = backlog
        self._needs: dict[Needs, Needs] = {}
        self._needs_bytes = 0
        self._most_held = most_held
        self.counts = Counter(counts)
        #: Queued jobs by owner, for the per-owner cap.
        self.queued_of: Counter[str] = Counter()
        #: Attempts that workers hold, by owner.
        self.held_of: Counter[str] = Counter()
        self.sequence = last_sequence
        #: Whether the disk has room only for the end of what runs: nothing is taken in or begun.
        self.disk_full = False

    def shared(self, needs: Needs) -> Needs:
        """The same needs, kept once for all jobs that have them: they are most of what a waiting job weighs."""
        known = self._needs.get(needs)
        if known is not None:
            return known
        size_bytes = sum(NAME_BYTES + len(name) for name in (*needs.nodes, *needs.models, *needs.labels))
        self._needs_bytes += size_bytes
        if len(self._needs) >= NEEDS_MOST or self._needs_bytes > NEEDS_BYTES:
            self._needs.clear()
            self._needs_bytes = size_bytes
        self._needs[needs] = needs
        return needs

    def recover(self, record: JobRecord) -> Job:
        """Take a live job over from the store at start; it is counted already. Those that wait are put into the backlog
        together."""
        needs = self.shared(record.needs)
        if needs is not record.needs:
            record = replace(record, needs=needs)
        job = self.live[record.job_id] = Job(record)
        if record.state is JobState.QUEUED:
            self.queued_of[record.owner] += 1
        else:
            self._count_held(record.owner, 1)
        return job

    def insert(self, step: Step, record: JobRecord, workflow: bytes, form: bytes, text: str = "") -> Job:
        job = self.live[record.job_id] = Job(record)
        self.counts[record.state] += 1
        step.writes.append(InsertJob(record, workflow, form, text))
        self._tell(step, job, "queued", "", record.created_utc_ms)
        self._enqueue(job)
        return job

    def revive(self, step: Step, record: JobRecord, now: Now) -> Job:
        """Bring a job back from a terminal state, as a person asked."""
        job = self.move(
            step, Job(record), JobState.QUEUED, now, "asked for again",
            worker="", last_worker="", prompt_id="", burnt=0, deaths=0, why=None, expect_ms=None,
            ran_out=False, least_vram_bytes=0, started_utc_ms=None, finished_utc_ms=None, failure=None, timings=None,
            outputs=(), deadline_utc_ms=None,
        )  # fmt: skip
        self.live[record.job_id] = job
        return job

    def move(
        self,
        step: Step,
        job: Job,
        state: JobState,
        now: Now,
        text: str,
        *,
        decision: Decision | None = None,
        **changes: Any,
    ) -> Job:
        """Change a job's state and whatever of its record goes with it. Raises InvalidTransition, changing nothing."""
        before = job.record
        if state not in JOB_MOVES[before.state]:
            raise InvalidTransition(f"{before.job_id}: {before.state} -> {state} ({text}); attempt {before.attempt}")
        if before.state is JobState.QUEUED:
            self._dequeue(job)
        if state.terminal:
            changes.setdefault("finished_utc_ms", now.utc_ms)
            del self.live[before.job_id]
        job.record = replace(before, state=state, **changes)
        self.counts[before.state] -= 1
        self.counts[state] += 1
        self._count_held(before.owner, (state in HELD) - (before.state in HELD))
        if state is JobState.QUEUED:
            self._enqueue(job)
        step.writes.append(UpdateJob(job.record))
        self._tell(step, job, state.value, text, now.utc_ms, decision=decision)
        return job

    def forget(self, step: Step, record: JobRecord) -> None:
        """Delete a job that is over."""
        self.counts[record.state] -= 1
        step.writes.append(DeleteJob(record.job_id))
        step.published.append(JobGone(stream="", serial=0, job_id=record.job_id, owner=record.owner))

    def amend(self, step: Step, job: Job, **changes: Any) -> None:
        """Change a job's record without changing its state."""
        job.record = replace(job.record, **changes)
        if job.record.job_id in self.backlog:
            self._to_backlog(job)
        step.writes.append(UpdateJob(job.record))
        self.show(step, job)

    def show(self, step: Step, job: Job) -> None:
        """Publish a job, as it will be when the events of this turn leave the core."""
        step.published.append(job)

    def ready_again(self, job: Job) -> None:
        """Its backoff is over."""
        if job.record.state is JobState.QUEUED and job.not_before_ms:
            job.not_before_ms = 0
            self._to_backlog(job)

    def comes_near(self, job: Job, near: int) -> None:
        """A queued job's deadline is so near now."""
        if job.near != near:
            job.near = near
            if job.record.job_id in self.backlog:
                self._to_backlog(job)

    def oldest_queued_utc_ms(self) -> int | None:
        """When the longest-waiting queued job was submitted. Live jobs are kept in the order in which they became so:
        what is looked at before the first queued one is what workers hold."""
        return next((j.record.created_utc_ms for j in self.live.values() if j.record.state is JobState.QUEUED), None)

    def _count_held(self, owner: str, more: int) -> None:
        if not more:
            return
        self.held_of[owner] += more
        if self._most_held and self.held_of[owner] >= self._most_held:
            self.backlog.hold_back(owner)
        else:
            self.backlog.let_go(owner)
        if not self.held_of[owner]:
            del self.held_of[owner]

    def _enqueue(self, job: Job) -> None:
        self.queued_of[job.record.owner] += 1
        if job.not_before_ms == 0:
            self._to_backlog(job)

    def _to_backlog(self, job: Job) -> None:
        record = job.record
        self.backlog.add(
            record.job_id,
            record.needed,
            owner=record.owner,
            pin=record.pin,
            priority=record.priority,
            sequence=record.sequence,
            near=job.near,
        )

    def _dequeue(self, job: Job) -> None:
        self.backlog.discard(job.record.job_id)
        self.queued_of[job.record.owner] -= 1
        if not self.queued_of[job.record.owner]:
            del self.queued_of[job.record.owner]

    def _tell(
        self, step: Step, job: Job, what: str, text: str, utc_ms: int, *, decision: Decision | None = None
    ) -> None:
        record = job.record
        line = StoryLine(
            utc_ms=utc_ms,
            what=what,
            attempt=record.attempt,
            burnt=record.burnt,
            worker=record.worker,
            text=text,
            decision=decision,
        )
        step.writes.append(AddStory(record.job_id, line))
        self.show(step, job)
