"""Who has how many jobs waiting and running, and for which models. What a worker only holds ready waits, too. Pure;
asked by people, decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from broker.core.jobs import Job, Jobs
from broker.protocol.records import JobState, ModelLoad, OwnerLoad

OWNERS: Final = 200
MODELS: Final = 100


def owners(jobs: Jobs, held: Collection[Job], owner: str) -> tuple[OwnerLoad, ...]:
    """Those with most jobs first; only one, if it is named."""
    names = [owner] if owner else {**jobs.queued_of, **jobs.held_of}
    ready = Counter(job.record.owner for job in held if _waits(job))
    found = [
        OwnerLoad(owner=name, queued=jobs.queued_of[name] + ready[name], running=jobs.held_of[name] - ready[name])
        for name in names
    ]
    found.sort(key=lambda one: (-one.queued - one.running, one.owner))
    return tuple(found[:OWNERS])


def models(jobs: Jobs, held: Collection[Job], owner: str) -> tuple[ModelLoad, ...]:
    """The same for models: of everybody's jobs, or of one owner's alone."""
    theirs = [job for job in held if owner in ("", job.record.owner)]
    queued = Counter(jobs.backlog.waiting_for if not owner else jobs.backlog.waiting_of(owner))
    queued.update(job.record.needs.models for job in theirs if _waits(job))
    running = Counter(job.record.needs.models for job in theirs if not _waits(job))
    found = [ModelLoad(models=names, queued=queued[names], running=running[names]) for names in {**queued, **running}]
    found.sort(key=lambda one: (-one.queued - one.running, one.models))
    return tuple(found[:MODELS])


def _waits(job: Job) -> bool:
    """Whether a worker has it, but its ComfyUI has not begun it."""
    return job.record.state is not JobState.CANCELLING and job.record.started_utc_ms is None
