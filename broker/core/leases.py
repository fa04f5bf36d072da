"""Who holds what: binds attempts to worker sessions, ends them, and keeps them for a name whose session is over.

Every path by which an attempt begins, is confirmed, or ends without a result goes through here, whoever asked for
it: a worker (hearing.py), a client (admission.py) or the clock (fleet.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from broker.core import expiry
from broker.core.backlog import group_key
from broker.core.breaker import Breakers
from broker.core.deadlines import Deadlines
from broker.core.estimates import Estimates
from broker.core.jobs import MANY, Job, Jobs
from broker.core.learning import began
from broker.core.model import JobRecord
from broker.core.retry import GiveUp, decide, failure, forgiven
from broker.core.roster import HELD_MOST, Roster, Worker
from broker.core.rules import Now, Rules
from broker.core.step import Send, Step
from broker.protocol.events import WorkerGone
from broker.protocol.records import Failure, Held, JobState, Limits, Phase, Reason, Resume, WorkerState
from broker.protocol.story import Decision
from broker.protocol.value import replace
from broker.protocol.worker import Abandon, CancelAttempt, Dispatch

#: What a worker gets beyond a limit that is its own to hold.
GRACE_MS = 60_000
#: How long outputs may be on their way: a full disk is waited for.
DELIVERY_MS = 24 * 3_600_000
#: How often is looked whether there still is the larger card that a job waits for.
LARGER_LOOK_MS = 60_000
#: So many times what was expected, and a run is taken for hung.
HUNG = 10
#: How often is looked whether an attempt stays too long in its phase.
PHASE_LOOK_MS = 60_000
#: How long a lost worker stays on the page.
FORGET_LOST_MS = 10 * 60_000


class Leases:
    def __init__(
        self, rules: Rules, jobs: Jobs, roster: Roster, estimates: Estimates, jitter: Callable[[], float]
    ) -> None:
        self.rules = rules
        self.jobs = jobs
        self.roster = roster
        self.estimates = estimates
        self.deadlines = Deadlines()
        self.breakers = Breakers(rules, roster, self.deadlines)
        #: Leased attempts whose session is over and whose worker's name is expected back: name -> job ids, never none.
        self.orphans: dict[str, set[str]] = {}
        self._jitter = jitter
        #: Dispatches of this broker's life; a worker's `seen` refers to them.
        self._dispatched = 0

    # ---- beginning

    def dispatch(self, step: Step, job: Job, holder: Worker, now: Now, *, decision: Decision, expect_ms: int) -> None:
        """Lease the job's next attempt to a worker that has room, and send it. expect_ms: how long it is to run."""
        self._lease(
            step, job, holder, now, f"to {holder.name}",
            attempt=job.record.attempt + 1, why=decision.why, expect_ms=expect_ms, decision=decision,
        )  # fmt: skip
        holder.given += 1
        self._dispatched += 1
        job.dispatch_serial = self._dispatched
        self._await_confirmation(job, now.mono_ms + self.rules.accept_ms)
        message = Dispatch(
            job_id=job.record.job_id,
            attempt=job.record.attempt,
            serial=job.dispatch_serial,
            files=job.record.files,
            limits=self._limits(job.record),
            workflow=b"",
        )
        step.sends.append(Send(holder.session, message, workflow_of=job.record.job_id))
        self.settle(holder)
        self.show(step, holder)

    def claim(self, step: Step, held: Held, holder: Worker, now: Now) -> bool:
        """Give a session the attempt it announces to hold, if that is the job's newest and nobody else's."""
        job = self.jobs.live.get(held.job_id)
        if job is None or job.record.attempt != held.attempt:
            return False
        if job.session or len(holder.jobs) >= HELD_MOST:
            return job.session == holder.session  # named twice
        record = job.record
        if record.state is JobState.QUEUED:
            if record.last_worker != holder.name or record.pin not in ("", holder.name):
                return False
            self._lease_again(step, job, holder, now)
        elif record.worker != holder.name:
            return False
        else:
            self._bind(job, holder)
        self.confirm(step, job, held, now)
        return True

    def offer_orphans(self, holder: Worker, now: Now) -> tuple[Resume, ...]:
        """Bind what is leased to this worker's name to its new session, to be confirmed within a lease."""
        offered = []
        for job_id in sorted(self.orphans.get(holder.name, ()))[: HELD_MOST - len(holder.jobs)]:
            job = self.jobs.live[job_id]
            self._bind(job, holder)
            self._await_confirmation(job, now.mono_ms + self.rules.lease_ms)
            offered.append(
                Resume(
                    job_id=job_id,
                    attempt=job.record.attempt,
                    prompt_id=job.record.prompt_id,
                    cancelling=job.record.state is JobState.CANCELLING,
                    limits=self._limits(job.record),
                )
            )
        return tuple(offered)

    # ---- while it is held

    def fenced(self, step: Step, holder: Worker, job_id: str, attempt: int) -> Job | None:
        """The job, if this session holds exactly this attempt of it; otherwise the worker is told to abandon it."""
        job = holder.jobs.get(job_id)
        if job is not None and job.record.attempt == attempt:
            return job
        self.abandon(step, holder.session, job_id, attempt, "another attempt of it counts, or it is over")
        return None

    def confirm(self, step: Step, job: Job, held: Held, now: Now) -> None:
        """Its worker named this attempt."""
        job.missed_beats, job.confirmed = 0, True
        if held.phase is Phase.RUNNING:
            began(self.estimates, self.roster.by_session[job.session], job, now)
        if job.phase is not held.phase:
            self.enter(job, held.phase, now)
            self.jobs.show(step, job)
        if job.record.state is JobState.CANCELLING:
            self.send_cancel(step, job)
        elif job.record.state is JobState.LEASED and held.phase is not Phase.STAGING:
            self.jobs.move(step, job, JobState.RUNNING, now, "its worker holds it")

    def take_back(self, step: Step, job: Job, now: Now, text: str) -> None:
        """Queue a job again that its worker has not begun, for another one's sake. It costs the job nothing."""
        session, attempt = job.session, job.record.attempt
        self.release(job)
        job.moves, job.paid = job.moves + 1, True
        self.jobs.move(
            step, job, JobState.QUEUED, now, f"taken back: {text}",
            worker="", prompt_id="", failure=None, why=None, expect_ms=None,
        )  # fmt: skip
        self.abandon(step, session, job.record.job_id, attempt, f"taken back: {text}"[:500])
        expiry.watch(self.jobs, self.deadlines, job, now)

    def enter(self, job: Job, phase: Phase, now: Now) -> None:
        """Its worker is so far with it, and may take so long over that: a worker that beats can be broken too."""
        holder, run_ms = self.roster.by_session.get(job.session), self.rules.start_to_close_ms
        match phase:
            case Phase.RUNNING:
                limit_ms = run_ms
            case Phase.FINISHING | Phase.ENDED:
                limit_ms = DELIVERY_MS
            case _:  # others may run before it, not all of them ours
                ahead = len(holder.jobs) + holder.others.prompts if holder is not None else 1
                limit_ms = (run_ms + self.rules.stall_ms) * ahead
        job.phase, job.phase_by_ms = phase, now.mono_ms + limit_ms + GRACE_MS
        self._look_at_phase(job, now)

    def lingers(self, step: Step, job: Job, now: Now) -> None:
        """Look whether an attempt stays too long in its phase."""
        if job.phase is None:
            return
        if not job.session or now.mono_ms < job.phase_by_ms:
            self._look_at_phase(job, now)
            return
        record, session = job.record, job.session
        reason = {Phase.RUNNING: Reason.TIMEOUT, Phase.FINISHING: Reason.OUTPUT_LOST, Phase.ENDED: Reason.OUTPUT_LOST}
        text = f"{record.worker} has said for too long that it is {job.phase}"
        self.ended(step, job, failure(reason.get(job.phase, Reason.NOT_ACCEPTED), text), now)
        self.abandon(step, session, record.job_id, record.attempt, "it took too long")

    def send_cancel(self, step: Step, job: Job) -> None:
        """Ask the holder to stop; repeated at each beat until it reports an end."""
        if job.session:
            message = CancelAttempt(job_id=job.record.job_id, attempt=job.record.attempt)
            step.sends.append(Send(job.session, message))

    def abandon(self, step: Step, session: str, job_id: str, attempt: int, why: str) -> None:
        step.sends.append(Send(session, Abandon(job_id=job_id, attempt=attempt, why=why)))

    # ---- ending

    def ended(self, step: Step, job: Job, why: Failure, now: Now, **changes: Any) -> None:
        """An attempt is over without a result: queue the job again, or end it."""
        record = job.record
        # A worker that falls silent counts once, whatever it held.
        subject = job.session if why.reason is Reason.WORKER_LOST else record.job_id
        self.breakers.failed(step, record.worker, subject, why, now)
        holder = self.roster.by_session.get(job.session)
        self.release(job)
        if record.state is JobState.CANCELLING:
            self.jobs.move(step, job, JobState.CANCELLED, now, why.text, failure=None, **changes)
            return
        verdict = decide(
            why.reason,
            attempt=record.attempt,
            burnt=record.burnt,
            deaths=record.deaths,
            ran_out=record.ran_out,
            jitter=self._jitter(),
            rules=self.rules,
        )
        if isinstance(verdict, GiveUp):
            final = replace(why, reason=verdict.reason)
            self.jobs.move(step, job, JobState.FAILED, now, why.text, failure=final, **changes)
            return
        if why.reason is Reason.OUT_OF_MEMORY and holder is not None:
            vram_bytes = holder.announced.gpu.vram_total_bytes
            larger = self._has_larger(job, vram_bytes)
            changes |= {"ran_out": True, "least_vram_bytes": vram_bytes + 1 if larger else 0}
            self.look_for_larger(job, now)
        if verdict.backoff_ms:
            job.not_before_ms = now.mono_ms + verdict.backoff_ms
            self.deadlines.at(job.not_before_ms, "backoff", record.job_id)
        expiry.watch(self.jobs, self.deadlines, job, now)
        self.jobs.move(
            step, job, JobState.QUEUED, now, f"{why.reason}: {why.text}"[:4_000],
            burnt=verdict.burnt, deaths=verdict.deaths, worker="", prompt_id="", failure=why, why=None, expect_ms=None,
            **changes,
        )  # fmt: skip

    def look_for_larger(self, job: Job, now: Now) -> None:
        self.deadlines.at(now.mono_ms + LARGER_LOOK_MS, "larger", job.record.job_id)

    def settle_for_less(self, step: Step, job: Job, now: Now) -> None:
        """A job that waits for a larger card than one it did not fit takes any, once no larger one is there."""
        least_bytes = job.record.least_vram_bytes
        if not least_bytes:
            return
        # One that was down when the memory was too small may have come up since: only now it counts for gone.
        if job.record.state is not JobState.QUEUED or self._has_larger(job, least_bytes - 1, answers=True):
            self.look_for_larger(job, now)  # an attempt may still come back
        else:
            self.jobs.amend(step, job, least_vram_bytes=0)

    def release(self, job: Job) -> None:
        """Nobody holds the job any more."""
        holder = self.roster.by_session.get(job.session)
        if holder is not None:
            holder.jobs.pop(job.record.job_id, None)
            self.settle(holder)
            self.roster.touch(holder.name)
        self._expect_no_more(job)
        job.session, job.phase, job.progress, job.confirmed, job.dispatch_serial = "", None, None, False, 0
        job.began_ms, job.cold, job.behind = None, (), MANY

    def overdue(self, step: Step, job: Job, now: Now) -> None:
        """Look at an attempt whose confirmation was due; it may be confirmed, or due later, or over."""
        if job.confirmed or job.record.state is JobState.QUEUED or job.confirm_by_ms > now.mono_ms:
            return
        record, session = job.record, job.session
        if session and not record.prompt_id:
            why = failure(Reason.NOT_ACCEPTED, f"{record.worker} did not confirm it in time")
        else:
            why = failure(Reason.WORKER_LOST, f"{record.worker} did not come back with it in time")
        self.ended(step, job, why, now)
        if session:
            self.abandon(step, session, record.job_id, record.attempt, "not confirmed in time")

    # ---- sessions

    def heard(self, holder: Worker, now: Now) -> None:
        """Any valid message renews the lease of everything the worker holds."""
        self.roster.heard(holder, now.mono_ms + self.rules.lease_ms)

    def settle(self, holder: Worker) -> bool:
        """Busy or ready, by what it holds; answers whether that changed."""
        if holder.ready is None:
            return False
        return holder.move(WorkerState.BUSY if holder.jobs else WorkerState.READY)

    def orphan(self, job: Job, now: Now) -> None:
        """Keep an attempt leased to its worker's name for one lease, without a session."""
        self.orphans.setdefault(job.record.worker, set()).add(job.record.job_id)
        job.session, job.confirmed = "", False
        self._await_confirmation(job, now.mono_ms + self.rules.lease_ms)

    def end_session(self, known: Worker, now: Now) -> None:
        """The session is replaced: what it holds waits for the name's next one."""
        for job in known.jobs.values():
            self.orphan(job, now)
        known.jobs.clear()
        if known.session in self.roster.by_session:
            self.roster.part(known)

    def lost(self, step: Step, silent: Worker, now: Now) -> None:
        """The worker's lease has run out."""
        for job in list(silent.jobs.values()):
            text = f"{silent.name} has been silent for {self.rules.lease_ms / 1000:g} s"
            self.ended(step, job, failure(Reason.WORKER_LOST, text), now)
        silent.move(WorkerState.LOST)
        self.roster.lose(silent)
        self.deadlines.at(now.mono_ms + FORGET_LOST_MS, "forget", silent.name)
        self.show(step, silent)

    def left(self, step: Step, gone: Worker, why: str, now: Now) -> None:
        """The worker said goodbye; whatever it did not hand back goes back without blame."""
        for job in list(gone.jobs.values()):
            self.ended(step, job, failure(Reason.DRAINING, f"{gone.name} left: {why}"), now)
        gone.move(WorkerState.LEFT)
        self.roster.part(gone)
        self.roster.forget(step, gone.name)
        step.published.append(WorkerGone(stream="", serial=0, worker=gone.name))

    def show(self, step: Step, known: Worker) -> None:
        self.roster.show(step, known)

    def held(self) -> Iterator[Job]:
        """Every job that somebody has, or is expected back with."""
        for present in self.roster.by_session.values():
            yield from present.jobs.values()
        for job_ids in self.orphans.values():
            yield from (self.jobs.live[job_id] for job_id in job_ids)

    # ---- within

    def _lease(
        self, step: Step, job: Job, holder: Worker, now: Now, text: str, *, attempt: int, **changes: Any
    ) -> None:
        self.jobs.move(
            step, job, JobState.LEASED, now, text,
            attempt=attempt, worker=holder.name, last_worker=holder.name, prompt_id="", started_utc_ms=None, **changes,
        )  # fmt: skip
        self._bind(job, holder)

    def _lease_again(self, step: Step, job: Job, holder: Worker, now: Now) -> None:
        """Give the last attempt back to the worker that still has it. That it was taken away costs the job nothing."""
        taken_away = job.record.failure
        job.not_before_ms = 0
        changes: dict[str, Any] = {}
        if taken_away is not None:
            burnt, deaths = forgiven(taken_away.reason, burnt=job.record.burnt, deaths=job.record.deaths)
            fits = {"ran_out": False, "least_vram_bytes": 0} if taken_away.reason is Reason.OUT_OF_MEMORY else {}
            changes = {"burnt": burnt, "deaths": deaths, "failure": None, **fits}
        self._lease(step, job, holder, now, "its worker came back with it", attempt=job.record.attempt, **changes)

    def _bind(self, job: Job, holder: Worker) -> None:
        # The serials of progress begin anew with each process of a worker.
        job.session, job.progress_serial = holder.session, -1
        job.missed_beats, job.dispatch_serial, job.confirmed = 0, 0, False
        holder.jobs[job.record.job_id] = job
        self.roster.touch(holder.name)
        self._expect_no_more(job)

    def _expect_no_more(self, job: Job) -> None:
        expected = self.orphans.get(job.record.worker, set())
        expected.discard(job.record.job_id)
        if not expected:
            self.orphans.pop(job.record.worker, None)

    def _look_at_phase(self, job: Job, now: Now) -> None:
        at_ms = min(max(job.phase_by_ms, now.mono_ms + 1), now.mono_ms + PHASE_LOOK_MS)
        self.deadlines.at(at_ms, "phase", job.record.job_id)

    def _await_confirmation(self, job: Job, due_ms: int) -> None:
        job.confirm_by_ms = due_ms
        self.deadlines.at(due_ms, "confirm", job.record.job_id)

    def _limits(self, record: JobRecord) -> Limits:
        """A run that takes many times what was expected is hung, where such jobs are known; never less than the limit
        on silence, which the operator has chosen for silent nodes."""
        hung_ms = 0
        if record.expect_ms is not None and self.estimates.is_known(record.needs):
            hung_ms = max(self.rules.stall_ms, HUNG * record.expect_ms)
        return Limits(start_to_close_ms=self.rules.start_to_close_ms, stall_ms=self.rules.stall_ms, hung_ms=hung_ms)

    def _has_larger(self, job: Job, vram_bytes: int, *, answers: bool = False) -> bool:
        """Whether a worker that gets work could run the job on a card with more memory than that. answers: its ComfyUI
        does, too."""
        record = job.record
        key = group_key(replace(record.needs, vram_bytes=vram_bytes + 1), record.pin, record.owner)
        return any(
            self.roster.serves(present.kind, key)
            for present in self.roster.by_session.values()
            if not record.pin and self.roster.may_work(present) and not (answers and present.lacks_comfyui)
        )
