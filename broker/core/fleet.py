"""The scheduling machine: one door, `handle(event, now) -> Step`. Pure: no clock, socket, store or randomness.

Theory. A job's attempt is leased to one session of one worker. The lease is the worker's own: any valid message
renews it, and its end costs the worker everything it held. A fence is (job, attempt, session): a message whose
fence is not the leased one changes nothing and is answered Abandon, so that the worker stops exactly that prompt.
What the two sides believe is compared at every heartbeat: an attempt the worker does not know (twice in a row) is
queued again, one the broker does not know is abandoned. Heartbeat never implies ready: work goes out only against
room a worker has offered, and only in Tick, after everything that had arrived was handled.

A name outlives its sessions. When a new session of a name announces itself, or the broker has restarted, attempts
leased to the name are offered back and stay leased until a confirmation is overdue; nothing runs twice meanwhile.
A worker that was declared lost and comes back with an attempt nobody else has taken since may go on with it.

The core's time stands still while its own loop was late (`_slip_ms`): a stopped broker declares nobody dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from broker.core import expiry
from broker.core.admission import admit
from broker.core.backlog import Backlog
from broker.core.estimates import Estimates, Figure
from broker.core.events import Event, FromClient, FromWorker, Outlived, Tick, Unreachable
from broker.core.fairness import Fairness
from broker.core.hearing import hear
from broker.core.jobs import Job, Jobs, view
from broker.core.leases import FORGET_LOST_MS, Leases
from broker.core.model import JobRecord
from broker.core.news import newest
from broker.core.outlook import Forecast, in_order
from broker.core.placing import Placing
from broker.core.roster import PAUSED, Roster
from broker.core.rules import Now, Rules
from broker.core.step import SaveFigure, Step
from broker.protocol.events import JobChanged, JobPreview, Outlook, StatsChanged, WorkerGone
from broker.protocol.records import Expected, FleetStats, JobState, JobView, WorkerState, WorkerView
from broker.protocol.value import replace

#: How long workers go unheard where that harms nobody, if so many heartbeats are to be expected meanwhile.
HUSH_MS: Final = 5
HUSH_BEATS: Final = 2


class Fleet:
    def __init__(
        self,
        rules: Rules,
        stream: str,
        *,
        jitter: Callable[[], float],
        counts: dict[JobState, int],
        last_sequence: int,
        now: Now,
    ) -> None:
        """stream: the id of this process life. jitter: uniform in [0, 1), for backoff. counts: jobs in the store."""
        self.rules = rules
        self.stream = stream
        #: Of the newest event published.
        self.serial = 0
        #: Messages that broke the contract, as whoever decodes has counted them; shown with the other counts.
        self.invalid_messages = 0
        fairness = Fairness(rules.weights)
        self.roster = Roster()
        estimates = Estimates()
        backlog = Backlog(self.roster.serves, fairness, estimates.size)
        self.jobs = Jobs(counts, last_sequence, backlog, most_held=rules.max_running_per_owner)
        self.leases = Leases(rules, self.jobs, self.roster, estimates, jitter)
        self.placing = Placing(self.leases, fairness)
        self._started_utc_ms = now.utc_ms
        #: How much of the monotonic clock the loop's own lateness has eaten.
        self._slip_ms = 0
        self._last_turn_ms = now.mono_ms
        self._stats_due_ms: int | None = None
        self._workers_due_ms: int | None = None
        #: When the waiting jobs are likely to begin, as was told last.
        self.outlook: tuple[Expected, ...] = ()
        self._outlook_due_ms: int | None = None
        self._saved_ms = now.mono_ms

    def recover(self, records: Iterable[JobRecord], notes: dict[str, str], figures: Iterable[Figure], now: Now) -> None:
        """Take over what the store holds as live and what was learnt, once, before any event. Leased attempts get one
        grace lease."""
        for figure in figures:
            self.leases.estimates.recall(figure)
        self.roster.recover(notes)
        for name in {key.partition("/")[2] for key in notes if key != PAUSED}:
            self.leases.deadlines.at(now.mono_ms + FORGET_LOST_MS, "forget", name)
        self.jobs.backlog.fill(self._recovered(records, now))

    def handle(self, event: Event, now: Now) -> Step:
        """Everything that follows from one event. The caller commits `writes`, and only then sends the rest.

        What is `published` goes through `publish`, of as many steps together as leave together.
        """
        step = Step()
        now = self._own_time(now)
        match event:
            case FromWorker():
                hear(self.leases, self.stream, step, event, now)
            case FromClient():
                admit(self.leases, step, event, now)
            case Unreachable(session):
                self._unreachable(session)
            case Outlived(records):
                for record in records:
                    if record.state.terminal and record.job_id not in self.jobs.live:
                        self.jobs.forget(step, record)
            case Tick():
                self._tick(step, now)
        if step.published and self._stats_due_ms is None:
            self._stats_due_ms = now.mono_ms + self.rules.stats_every_ms
        if step.published and self._outlook_due_ms is None and (len(self.jobs.backlog) or self.outlook):
            self._outlook_due_ms = now.mono_ms + self.rules.outlook_every_ms
        if isinstance(event, Tick):
            self._tell(step, now)
        return step

    def publish(self, messages: Iterable[Any]) -> list[Any]:
        """What of the events of some steps is worth telling, each with its place in the stream."""
        return [self._numbered(message) for message in newest(messages)]

    def sleep_ms(self, mono_ms: int) -> int:
        """How long the loop may wait for messages before the next Tick."""
        if self.placing.stopped_short:
            return 0
        silent_ms, next_ms = self.roster.next_silent_ms(), self.leases.deadlines.next_ms()
        due = (silent_ms, next_ms, self._stats_due_ms, self._workers_due_ms, self._outlook_due_ms)
        waits = [at + self._slip_ms - mono_ms for at in due if at is not None]
        return max(0, min([self.rules.turn_ms, *waits]))

    def hush_ms(self) -> int:
        """How long the workers may go unheard, so that one turn hears many of them: there is no job, and they are so
        many that their heartbeats alone would make turn after turn."""
        many = len(self.roster.by_session) * HUSH_MS >= HUSH_BEATS * self.rules.heartbeat_ms
        return HUSH_MS if many and not self.jobs.live else 0

    # ---- at a start

    def _recovered(self, records: Iterable[JobRecord], now: Now) -> Iterator[tuple[JobRecord, int]]:
        """Those that wait, and how near the deadline of each is."""
        for record in records:
            job = self.jobs.recover(record)
            if record.least_vram_bytes:
                self.leases.look_for_larger(job, now)
            if record.state is not JobState.QUEUED:
                self.leases.orphan(job, now)
                continue
            expiry.watch(self.jobs, self.leases.deadlines, job, now)
            yield job.record, job.near

    # ---- time

    def _own_time(self, now: Now) -> Now:
        """The clock the core decides by. Whatever the loop was late is taken out before the first message is heard, so
        that a late turn neither ends a lease nor makes one longer."""
        mono_ms = now.mono_ms - self._slip_ms
        late_ms = max(0, mono_ms - self._last_turn_ms - self.rules.turn_ms)
        self._slip_ms += late_ms
        return Now(mono_ms - late_ms, now.utc_ms)

    def _tick(self, step: Step, now: Now) -> None:
        self._last_turn_ms = now.mono_ms
        for silent in self.roster.silent(now.mono_ms):
            self.leases.lost(step, silent, now)
        for kind, key in self.leases.deadlines.fallen(now.mono_ms):
            self._due(step, kind, key, now)
        self.placing.place(step, now)
        if self._workers_due_ms is not None and self._workers_due_ms <= now.mono_ms:
            self._workers_due_ms = None
            self.roster.tell(step)
        elif self._workers_due_ms is None and self.roster.untold:
            self._workers_due_ms = now.mono_ms + self.rules.workers_every_ms

    def _tell(self, step: Step, now: Now) -> None:
        """What is told and kept from time to time."""
        if self._stats_due_ms is not None and self._stats_due_ms <= now.mono_ms:
            step.published.append(StatsChanged(stream="", serial=0, stats=self.stats(now)))
            self._stats_due_ms = None
        if self._outlook_due_ms is not None and self._outlook_due_ms <= now.mono_ms:
            self._outlook_due_ms = None
            before, self.outlook = self.outlook, self._expected(now)
            if self.outlook != before:
                step.published.append(Outlook(stream="", serial=0, queue=self.outlook))
        if now.mono_ms - self._saved_ms >= self.rules.save_every_ms:
            self._saved_ms = now.mono_ms
            step.writes += [SaveFigure(figure) for figure in self.leases.estimates.unsaved()]

    def _due(self, step: Step, kind: str, key: str, now: Now) -> None:
        """The moment of a deadline has come; what it was for may have moved on."""
        match kind:
            case "confirm":
                job = self.jobs.live.get(key)
                if job is not None:
                    self.leases.overdue(step, job, now)
            case "expire":
                job = self.jobs.live.get(key)
                if job is not None:
                    expiry.fallen(step, self.jobs, self.leases.deadlines, job, now)
            case "backoff":
                job = self.jobs.live.get(key)
                if job is not None and job.not_before_ms <= now.mono_ms:
                    self.jobs.ready_again(job)
            case "larger":
                job = self.jobs.live.get(key)
                if job is not None:
                    self.leases.settle_for_less(step, job, now)
            case "phase":
                job = self.jobs.live.get(key)
                if job is not None:
                    self.leases.lingers(step, job, now)
            case "breaker":
                self.leases.breakers.due(step, key, now)
            case "forget":
                known = self.roster.by_name.get(key)
                if known is None:
                    self.roster.forget(step, key)
                elif known.state is WorkerState.LOST:
                    del self.roster.by_name[key]
                    self.roster.touch(key)
                    self.roster.forget(step, key)
                    step.published.append(WorkerGone(stream="", serial=0, worker=key))

    def _unreachable(self, session: str) -> None:
        """A send found no connection: send no more work until the session says that it has room."""
        gone = self.roster.by_session.get(session)
        if gone is not None:
            gone.ready = None
            self.roster.touch(gone.name)

    # ---- what others see

    def stats(self, now: Now) -> FleetStats:
        counts = self.jobs.counts
        return FleetStats(
            queued=counts[JobState.QUEUED],
            leased=counts[JobState.LEASED],
            running=counts[JobState.RUNNING],
            cancelling=counts[JobState.CANCELLING],
            succeeded=counts[JobState.SUCCEEDED],
            failed=counts[JobState.FAILED],
            cancelled=counts[JobState.CANCELLED],
            workers=len(self.roster.by_session),
            paused=self.roster.fleet_paused,
            disk_full=self.jobs.disk_full,
            oldest_queued_utc_ms=self.jobs.oldest_queued_utc_ms(),
            invalid_messages=self.invalid_messages,
            expected_error=self.leases.estimates.median_error(),
            uptime_ms=max(0, now.utc_ms - self._started_utc_ms),
        )

    def _expected(self, now: Now) -> tuple[Expected, ...]:
        jobs = self.jobs
        if not len(jobs.backlog):
            return ()
        estimates = self.leases.estimates
        waiting = ((jobs.live[job_id], key) for job_id, key in in_order(jobs.backlog, self.placing.charge))
        return Forecast(self.roster, self.placing.rooms, estimates, now).expected(waiting)

    def workers(self) -> tuple[WorkerView, ...]:
        return tuple(self.roster.view(known) for known in self.roster.by_name.values())

    def job_view(self, record: JobRecord) -> JobView:
        """A job as clients see it: the core's own knowledge where it is live, else what the store said."""
        job = self.jobs.live.get(record.job_id)
        return view(record, None) if job is None else view(job.record, job)

    def _numbered(self, message: Any) -> Any:
        """Give a published message its place in the stream; previews are lossy and have none."""
        if isinstance(message, JobPreview):
            return message
        self.serial += 1
        if isinstance(message, Job):
            return JobChanged(stream=self.stream, serial=self.serial, job=view(message.record, message))
        return replace(message, stream=self.stream, serial=self.serial)
