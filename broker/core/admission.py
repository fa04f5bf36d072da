"""What the core does with each request of a client that changes something. Each gets exactly one reply.

Requests that only read are answered beside the core (broker/reading.py): they need the store, not a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from broker.core import expiry
from broker.core.backlog import group_key
from broker.core.events import FromClient
from broker.core.jobs import Job, view
from broker.core.leases import Leases
from broker.core.model import JobRecord
from broker.core.retry import ATTEMPTS_MOST
from broker.core.roster import DRAINING, PAUSED
from broker.core.rules import Now
from broker.core.step import Send, Step
from broker.core.submits import body_sha256, fault, ids, jobs_of
from broker.protocol import client, worker
from broker.protocol.records import JobState, WorkerState


def admit(leases: Leases, step: Step, event: FromClient, now: Now) -> None:
    """One checked request."""
    reply = HANDLERS[type(event.message)](leases, step, event, now)
    step.replies.append(Send(event.session, reply))


def _submit(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Submit = event.message
    body = body_sha256(said)
    if event.stored is not None:
        return _submitted_before(leases, said, event.stored, body)
    if event.deleted:
        text = (
            f"this was submitted before, as job {event.deleted}, which is deleted: use a new key or id to run it again"
        )
        return _error(said, "deleted", text)
    if why := fault(said):
        return _error(said, "invalid", why)
    refusal = _no_room(leases, said, said.owner, max(1, len(said.parts))) or _nobody(leases, said)
    if refusal is not None:
        return refusal
    for job, place in jobs_of(said):
        leases.jobs.sequence += 1
        record = JobRecord(
            job_id=job.job_id,
            sequence=leases.jobs.sequence,
            owner=job.owner,
            idempotency_key=job.idempotency_key,
            body_sha256=body,
            title=job.title,
            template=job.template,
            labels=job.labels,
            priority=job.priority,
            needs=leases.jobs.shared(job.needs),
            files=job.files,
            created_utc_ms=now.utc_ms,
            group=place,
            pin=job.pin,
            deadline_utc_ms=now.utc_ms + job.deadline_ms if job.deadline_ms is not None else None,
        )
        queued = leases.jobs.insert(step, record, job.workflow, job.form, job.text)
        expiry.watch(leases.jobs, leases.deadlines, queued, now)
    return _submitted(said, queued.record, queued)


def _no_room(leases: Leases, said: client.Submit | client.Retry, owner: str, asked: int) -> client.Error | None:
    rules, jobs = leases.rules, leases.jobs
    queued, theirs = jobs.counts[JobState.QUEUED], jobs.queued_of[owner]
    if jobs.disk_full:
        text = "the broker's disk is almost full: an admin has to make room, then try again"
        return _error(said, "disk_full", text, 30_000)
    if queued + asked > rules.max_queued:
        text = f"the queue holds {queued} jobs of at most {rules.max_queued}: no room for {asked} more; try again later"
        return _error(said, "full", text, 5_000)
    if theirs + asked > rules.max_queued_per_owner:
        text = f"owner '{owner}' has {theirs} jobs queued of at most {rules.max_queued_per_owner} for one owner: "
        return _error(said, "quota", f"{text}no room for {asked} more; wait, or cancel some", 5_000)
    return None


def _nobody(leases: Leases, said: client.Submit) -> client.Error | None:
    if said.wait_for_worker:
        return None
    why = leases.roster.why_not(group_key(said.needs, said.pin))
    return _error(said, "no_worker", f"{why}: change the workflow or the fleet, or let the job wait") if why else None


def _submitted_before(leases: Leases, said: client.Submit, stored: JobRecord, body: str) -> Any:
    if not _same_key(said, stored):
        what = "job id" if stored.job_id in ids(said) else "id of a group"
        used = stored.job_id if stored.job_id in ids(said) else _key_of(stored)
        return _error(said, "conflict", f"the {what} {used} is in use: choose another")
    if stored.body_sha256 != body:
        text = f"this idempotency key was used for job {stored.job_id}, which has another body: use a new key"
        return _error(said, "conflict", text)
    job = leases.jobs.live.get(stored.job_id)
    return _submitted(said, job.record if job is not None else stored, job, existed=True)


def _same_key(said: client.Submit, stored: JobRecord) -> bool:
    """Whether it says again what was submitted: by its key, or without one by its id."""
    if (stored.owner, stored.idempotency_key) != (said.owner, said.idempotency_key):
        return False
    return said.idempotency_key != "" or said.job_id == _key_of(stored)


def _key_of(stored: JobRecord) -> str:
    """The id that it was submitted by: of the whole, where it is of a group."""
    return stored.group.group_id if stored.group is not None else stored.job_id


def _submitted(said: client.Submit, record: JobRecord, job: Job | None, *, existed: bool = False) -> Any:
    if record.group is None:
        return _job(said, record, job, existed=existed)
    place = record.group
    return client.GroupReply(request_id=said.request_id, group_id=place.group_id, size=place.size, existed=existed)


def _cancel(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Cancel = event.message
    job = leases.jobs.live.get(said.job_id)
    if job is None:
        return _not_live(said, event.stored, "there is nothing left to cancel")
    if job.record.state is JobState.QUEUED:
        leases.jobs.move(step, job, JobState.CANCELLED, now, "cancelled while it was queued")
    elif job.record.state is not JobState.CANCELLING:
        leases.jobs.move(step, job, JobState.CANCELLING, now, "cancelled while its worker held it")
        leases.send_cancel(step, job)
    return _job(said, job.record, job)


def _retry(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Retry = event.message
    live, stored = leases.jobs.live.get(said.job_id), event.stored
    if live is not None:
        text = f"job {said.job_id} is {live.record.state}: wait for its end, or cancel it first"
        return _error(said, "conflict", text)
    if stored is None:
        return _not_live(said, None, "")
    if stored.state is JobState.SUCCEEDED:
        return _error(said, "finished", f"job {said.job_id} succeeded: submit a new one instead")
    if stored.attempt >= ATTEMPTS_MOST:
        text = f"job {said.job_id} has had {stored.attempt} attempts, the most for one job: submit a new one instead"
        return _error(said, "finished", text)
    refusal = _no_room(leases, said, stored.owner, 1)
    if refusal is not None:
        return refusal
    job = leases.jobs.revive(step, stored, now)
    return _job(said, job.record, job)


def _delete(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Delete = event.message
    live, stored = leases.jobs.live.get(said.job_id), event.stored
    if live is not None:
        return _error(
            said, "conflict", f"job {said.job_id} is {live.record.state}: cancel it, and delete it when it is over"
        )
    if stored is None:
        return _not_live(said, None, "")
    leases.jobs.forget(step, stored)
    return client.Done(request_id=said.request_id)


def _pin(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Pin = event.message
    return _amend_queued(leases, step, event, pin=said.worker)


def _reorder(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.Reorder = event.message
    return _amend_queued(leases, step, event, priority=said.priority)


def _amend_queued(leases: Leases, step: Step, event: FromClient, **changes: Any) -> Any:
    said = event.message
    job = leases.jobs.live.get(said.job_id)
    if job is None:
        return _not_live(said, event.stored, "it waits for nothing")
    if job.record.state is not JobState.QUEUED:
        text = f"job {said.job_id} is {job.record.state}: only a queued job can be moved, let it finish or cancel it"
        return _error(said, "conflict", text)
    leases.jobs.amend(step, job, **changes)
    return _job(said, job.record, job)


def _pause(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    return _set_paused(leases, step, event, True)


def _resume(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    return _set_paused(leases, step, event, False)


def _set_paused(leases: Leases, step: Step, event: FromClient, paused: bool) -> Any:
    said, roster = event.message, leases.roster
    if not said.worker:
        roster.fleet_paused = paused
        roster.remember(step, PAUSED, "", "yes" if paused else "")
        return client.Done(request_id=said.request_id)
    known = roster.by_name.get(said.worker)
    if known is None:
        return _no_worker(leases, said)
    (roster.paused.add if paused else roster.paused.discard)(said.worker)
    roster.touch(said.worker)
    roster.remember(step, PAUSED, said.worker, "yes" if paused else "")
    leases.show(step, known)
    return client.Done(request_id=said.request_id)


def _drain(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.DrainWorker = event.message
    known = leases.roster.by_name.get(said.worker)
    if known is None or known.state is WorkerState.LOST:
        return _no_worker(leases, said)
    step.sends.append(Send(known.session, worker.Drain()))
    leases.roster.remember(step, DRAINING, known.name, known.session)
    if known.move(WorkerState.DRAINING):
        leases.roster.touch(said.worker)
        leases.show(step, known)
    return client.Done(request_id=said.request_id)


def _probe(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.ProbeWorker = event.message
    known = leases.roster.by_name.get(said.worker)
    if known is None or known.state is WorkerState.LOST:
        return _no_worker(leases, said)
    leases.breakers.ask(step, known, "an admin asked for a probe", now)
    return client.Done(request_id=said.request_id)


def _restart(leases: Leases, step: Step, event: FromClient, now: Now) -> Any:
    said: client.RestartWorker = event.message
    known = leases.roster.by_name.get(said.worker)
    if known is None or known.state is WorkerState.LOST:
        return _no_worker(leases, said)
    if not known.announced.restartable:
        text = f"worker {said.worker} has no command that starts its ComfyUI anew: set [worker] restart where it runs"
        return _error(said, "conflict", text)
    step.sends.append(Send(known.session, worker.Restart(why="an admin asked for it")))
    leases.breakers.restarted(step, known, now)
    return client.Done(request_id=said.request_id)


def _job(said: Any, record: JobRecord, job: Job | None, *, existed: bool = False) -> client.JobReply:
    return client.JobReply(request_id=said.request_id, job=view(record, job), existed=existed, workflow=b"", form=b"")


def _not_live(said: Any, stored: JobRecord | None, consequence: str) -> client.Error:
    if stored is None:
        return _error(said, "not_found", f"no job has the id {said.job_id}: check it, or list the jobs")
    return _error(said, "finished", f"job {said.job_id} is {stored.state}: {consequence}")


def _no_worker(leases: Leases, said: Any) -> client.Error:
    present = sorted(known.name for known in leases.roster.by_session.values())
    there = ", ".join(present[:20]) if present else "none"
    return _error(said, "not_found", f"no worker called {said.worker} is here: choose one of those that are: {there}")


def _error(said: Any, code: str, text: str, retry_after_ms: int = 0) -> client.Error:
    return client.Error(request_id=said.request_id, code=code, text=text, retry_after_ms=retry_after_ms)


HANDLERS: Final[dict[type[Any], Callable[[Leases, Step, FromClient, Now], Any]]] = {
    client.Submit: _submit,
    client.Cancel: _cancel,
    client.Retry: _retry,
    client.Delete: _delete,
    client.Pause: _pause,
    client.Resume: _resume,
    client.DrainWorker: _drain,
    client.ProbeWorker: _probe,
    client.RestartWorker: _restart,
    client.Pin: _pin,
    client.Reorder: _reorder,
}
