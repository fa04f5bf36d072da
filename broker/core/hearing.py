"""What the core does with each message of a worker.

The fence is asked first wherever a message names an attempt. Nothing here hands out work: Tick does, later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from broker.core import learning
from broker.core.events import FromWorker
from broker.core.leases import Leases
from broker.core.retry import failure
from broker.core.roster import CONTESTS, DRAINING, WORKERS_MOST, Worker
from broker.core.rules import Now
from broker.core.step import Send, Step
from broker.protocol import worker
from broker.protocol.events import JobPreview, JobProgress
from broker.protocol.records import JobState, Phase, ProgressKind, Reason, WorkerState
from broker.protocol.value import replace

#: What placement sees nothing of, unless its handler says so: an idle fleet says little else, and says it all the time.
UNSEEN: Final = (worker.Heartbeat, worker.Ready, worker.ProgressReport)
ANNOUNCE_FIRST: Final = "announce first"
ANNOUNCE_AGAIN: Final = "announce again: your ComfyUI answers, and what you announced does not know it"
NAME_TAKEN: Final = "another process has taken this worker's name"
CONTESTED: Final = (
    "several processes call themselves {}, and one that has it answers: give each its own --name; "
    "this one is let in once that one is gone"
)


def hear(leases: Leases, stream: str, step: Step, event: FromWorker, now: Now) -> None:
    """One checked message from a worker's session, known or not."""
    if isinstance(event.message, worker.Announce):
        _announce(leases, stream, step, event, now)
        return
    speaker = leases.roster.by_session.get(event.session)
    if speaker is None:
        retired = event.session in leases.roster.retired
        if retired:
            leases.roster.outlived(event.session, now.mono_ms)
        refused = worker.Refused(why=NAME_TAKEN if retired else ANNOUNCE_FIRST, retry=not retired)
        step.sends.append(Send(event.session, refused))
        return
    if event.key_name not in ("", speaker.name):
        step.sends.append(Send(event.session, worker.Refused(why=_wrong_key(event, speaker.name), retry=False)))
        return
    leases.heard(speaker, now)
    if not isinstance(event.message, UNSEEN):
        leases.roster.touch(speaker.name)
    HANDLERS[type(event.message)](leases, step, speaker, event, now)


def _announce(leases: Leases, stream: str, step: Step, event: FromWorker, now: Now) -> None:
    said: worker.Announce = event.message
    refusal = _refusal(leases, event)
    if refusal:
        step.sends.append(Send(event.session, worker.Refused(why=refusal, retry=False)))
        return
    if _contested(leases, said, now):
        step.sends.append(Send(event.session, worker.Refused(why=CONTESTED.format(said.worker), retry=True)))
        return
    present = Worker(said, now.utc_ms)
    leases.estimates.know_card(said.worker, said.gpu.name, said.gpu.kind)
    learning.told(leases.estimates, present)
    known = leases.roster.by_name.get(said.worker)
    if known is not None:
        present.succeeded, present.failed, present.breaker = known.succeeded, known.failed, known.breaker
        present.done = known.done
        if known.session != said.session:
            leases.roster.retire(known.session, known.name)
            step.sends.append(Send(known.session, worker.Refused(why=NAME_TAKEN, retry=False)))
        else:
            present.resident, present.sets, present.given = known.resident, known.sets, known.given
            if known.state is WorkerState.DRAINING:
                present.move(WorkerState.DRAINING)
        leases.end_session(known, now)
    asked_to_drain = leases.roster.notes.get(DRAINING + present.name) == present.session
    if asked_to_drain:
        present.move(WorkerState.DRAINING)
    leases.roster.join(present)
    leases.heard(present, now)
    leases.breakers.joined(present, now)
    claimed = [leases.claim(step, held, present, now) for held in said.held]
    welcome = worker.Welcome(
        broker=stream,
        heartbeat_ms=leases.rules.heartbeat_ms,
        lease_ms=leases.rules.lease_ms,
        need_capabilities=leases.roster.wants(said.capabilities),
        resume=leases.offer_orphans(present, now),
    )
    step.sends.append(Send(said.session, welcome))
    if asked_to_drain:
        step.sends.append(Send(said.session, worker.Drain()))  # nobody knows whether the first one came
    for held, mine in zip(said.held, claimed, strict=True):
        if not mine:
            leases.abandon(step, said.session, held.job_id, held.attempt, "it is not leased to you")
    leases.show(step, present)


def _contested(leases: Leases, said: worker.Announce, now: Now) -> bool:
    """Whether another has its name and speaks, and processes keep taking that from one another, or this one would waste
    it: it has no ComfyUI, and the other has."""
    rival = leases.roster.rival(said.worker, said.session)
    if rival is None:
        return False
    rival.forget_contests(now.mono_ms)
    wasted = said.capabilities is None and rival.announced.capabilities is not None
    return wasted or len(rival.breaker.contests) >= CONTESTS


def _refusal(leases: Leases, event: FromWorker) -> str:
    """Why this announcement is not let in; empty when it is."""
    said: worker.Announce = event.message
    roster = leases.roster
    if event.key_name not in ("", said.worker):
        return _wrong_key(event, said.worker)
    if said.session != event.session:
        return "the session announced is not the one this socket has: use one id for both"
    known = roster.by_session.get(said.session)
    if known is not None and known.name != said.worker:
        return f"this session is worker {known.name}: a process has one name, start another one for {said.worker}"
    if said.worker not in roster.by_name and len(roster.by_name) >= WORKERS_MOST:
        return f"{WORKERS_MOST} workers are known, the most for one broker: stop some, or start a second broker"
    return NAME_TAKEN if said.session in roster.retired else ""


def _wrong_key(event: FromWorker, name: str) -> str:
    return f"this key belongs to worker {event.key_name}, not {name}: start it with --name {event.key_name}"


def _capabilities(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Capabilities = event.message
    if said.digest == speaker.announced.capabilities:
        leases.roster.learn(said)


def _ready(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Ready = event.message
    if speaker.ready is None or said.serial > speaker.ready.serial:
        before, room, speaker.ready = speaker.ready, speaker.room(), said
        if before is None or speaker.room() != room:
            leases.roster.touch(speaker.name)
        if leases.settle(speaker):
            leases.show(step, speaker)


def _heartbeat(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Heartbeat = event.message
    if speaker.beat(said, now):
        leases.roster.touch(speaker.name)
    leases.roster.measured(speaker.name)
    if speaker.announced.capabilities is None and not said.stats.comfy_fault:
        # It has said so, and that was lost on the way: else it would get no work for ever.
        step.sends.append(Send(speaker.session, worker.Refused(why=ANNOUNCE_AGAIN, retry=True)))
    unknown = leases.roster.wants(speaker.announced.capabilities)
    ready = speaker.ready.serial if speaker.ready is not None else 0
    step.sends.append(Send(speaker.session, worker.Beat(need_capabilities=unknown, ready=ready)))
    if speaker.state is WorkerState.DRAINING and speaker.ready is not None and speaker.ready.credits:
        step.sends.append(Send(speaker.session, worker.Drain()))  # the first one got lost
    named = {(held.job_id, held.attempt): held for held in said.held}
    for job in list(speaker.jobs.values()):
        held = named.pop((job.record.job_id, job.record.attempt), None)
        if held is not None:
            leases.confirm(step, job, held, now)
        elif job.confirmed:
            job.missed_beats += 1
            if job.missed_beats >= 2:
                text = f"{speaker.name} does not hold it any more"
                leases.ended(step, job, failure(Reason.WORKER_LOST, text), now)
    for held in named.values():
        leases.abandon(step, speaker.session, held.job_id, held.attempt, "it is not leased to you")


def _accepted(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Accepted = event.message
    job = leases.fenced(step, speaker, said.job_id, said.attempt)
    if job is None:
        return
    job.confirmed, job.missed_beats = True, 0
    if job.record.state is JobState.LEASED:
        if job.phase in (None, Phase.STAGING):
            leases.enter(job, Phase.STAGED, now)
        leases.jobs.move(step, job, JobState.RUNNING, now, "in ComfyUI's queue", prompt_id=said.prompt_id)
        leases.show(step, speaker)
    elif job.record.prompt_id != said.prompt_id:
        leases.jobs.amend(step, job, prompt_id=said.prompt_id)


def _progress(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.ProgressReport = event.message
    job = leases.fenced(step, speaker, said.job_id, said.attempt)
    if job is None or said.serial <= job.progress_serial:
        return
    job.progress_serial = said.serial
    if said.progress.kind is ProgressKind.PREVIEW:
        preview = JobPreview(job_id=said.job_id, attempt=said.attempt, media_type=said.media_type, image=said.image)
        step.published.append(preview)
        return
    job.progress = said.progress
    if said.progress.kind is ProgressKind.STARTED:
        # Lossy like all progress: it reaches the disk with the job's next change of state.
        leases.enter(job, Phase.RUNNING, now)
        job.record = replace(job.record, started_utc_ms=now.utc_ms)
        learning.began(leases.estimates, speaker, job, now)
        leases.roster.touch(speaker.name)
        leases.jobs.show(step, job)
        leases.show(step, speaker)
    step.published.append(
        JobProgress(stream="", serial=0, job_id=said.job_id, attempt=said.attempt, progress=said.progress)
    )


def _complete(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Complete = event.message
    if _recorded_before(leases, step, speaker, event):
        return
    job = leases.fenced(step, speaker, said.job_id, said.attempt)
    if job is None:
        return
    learning.succeeded(leases.estimates, speaker, job, said.timings, now)
    leases.release(job)
    speaker.succeeded += 1
    speaker.done.add(now.mono_ms)
    leases.breakers.succeeded(speaker)
    outcome: dict[str, Any] = {"outputs": said.outputs, "timings": said.timings, "failure": None}
    leases.jobs.move(step, job, JobState.SUCCEEDED, now, "", **outcome)
    _recorded(leases, step, speaker, said.job_id, said.attempt)


def _fail(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    said: worker.Fail = event.message
    if _recorded_before(leases, step, speaker, event):
        return
    job = leases.fenced(step, speaker, said.job_id, said.attempt)
    if job is None:
        return
    if said.failure.reason not in (Reason.CANCELLED, Reason.DRAINING):
        speaker.failed += 1
    learning.failed(speaker, said.failure.reason)
    leases.ended(step, job, said.failure, now, timings=said.timings)
    _recorded(leases, step, speaker, said.job_id, said.attempt)


def _recorded_before(leases: Leases, step: Step, speaker: Worker, event: FromWorker) -> bool:
    """A repeated end of the attempt that ended its job is confirmed again."""
    said, stored = event.message, event.stored
    if said.job_id in leases.jobs.live or stored is None:
        return False
    if (stored.worker, stored.attempt) != (speaker.name, said.attempt):
        return False
    if isinstance(said, worker.Complete) != (stored.state is JobState.SUCCEEDED):
        return False  # it was over before this end was told, in another way
    step.sends.append(Send(event.session, worker.Recorded(job_id=said.job_id, attempt=said.attempt)))
    return True


def _recorded(leases: Leases, step: Step, speaker: Worker, job_id: str, attempt: int) -> None:
    step.sends.append(Send(speaker.session, worker.Recorded(job_id=job_id, attempt=attempt)))
    leases.show(step, speaker)


def _draining(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    if speaker.move(WorkerState.DRAINING):
        leases.show(step, speaker)


def _leave(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    leases.left(step, speaker, event.message.why, now)


def _probed(leases: Leases, step: Step, speaker: Worker, event: FromWorker, now: Now) -> None:
    leases.breakers.answered(step, speaker, event.message, now)


#: The whole list of what a known session may say.
HANDLERS: Final[dict[type[Any], Callable[[Leases, Step, Worker, FromWorker, Now], None]]] = {
    worker.Capabilities: _capabilities,
    worker.Ready: _ready,
    worker.Heartbeat: _heartbeat,
    worker.Accepted: _accepted,
    worker.ProgressReport: _progress,
    worker.Complete: _complete,
    worker.Fail: _fail,
    worker.Draining: _draining,
    worker.Leave: _leave,
    worker.Probed: _probed,
}
