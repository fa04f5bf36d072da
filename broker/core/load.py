"""Who has how many jobs waiting and running, and for which models. Pure; asked by people, decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from broker.core.jobs import Job, Jobs
from broker.protocol.records import ModelLoad, OwnerLoad

OWNERS: Final = 200
MODELS: Final = 100


def owners(jobs: Jobs, owner: str) -> tuple[OwnerLoad, ...]:
    """Those with most jobs first; only one, if it is named."""
    names = [owner] if owner else {**jobs.queued_of, **jobs.held_of}
    found = [OwnerLoad(owner=name, queued=jobs.queued_of[name], running=jobs.held_of[name]) for name in names]
    found.sort(key=lambda one: (-one.queued - one.running, one.owner))
    return tuple(found[:OWNERS])


def models(jobs: Jobs, held: Iterable[Job], owner: str) -> tuple[ModelLoad, ...]:
    """The same for models: of everybody's jobs, or of one owner's alone."""
    queued = jobs.backlog.waiting_for if not owner else jobs.backlog.waiting_of(owner)
    running = Counter(job.record.needs.models for job in held if owner in ("", job.record.owner))
    found = [
        ModelLoad(models=names, queued=queued.get(names, 0), running=running[names]) for names in {**queued, **running}
    ]
    found.sort(key=lambda one: (-one.queued - one.running, one.models))
    return tuple(found[:MODELS])
