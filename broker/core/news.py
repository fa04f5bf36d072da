"""What is worth publishing of everything that changed in one turn: the newest of each thing. Pure.

Watchers are told states, not steps: an event carries the whole of what it is about, so a newer one makes it needless.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.protocol.events import (
    JobChanged,
    JobGone,
    JobPreview,
    JobProgress,
    Outlook,
    StatsChanged,
    WorkerChanged,
    WorkerGone,
)


def newest(published: Iterable[Any]) -> list[Any]:
    """The last event about each thing, in the order of these; no progress that the job's own event shows too."""
    kept: dict[tuple[str, str], Any] = {}
    for message in published:
        match message:
            case JobChanged(job=job):
                kept.pop(("progress", job.job_id), None)
                key = "job", job.job_id
            case JobGone(job_id=job_id):
                kept.pop(("progress", job_id), None)
                key = "job", job_id
            case JobProgress(job_id=job_id):
                changed = kept.get(("job", job_id))
                if isinstance(changed, JobChanged) and changed.job.progress == message.progress:
                    continue
                key = "progress", job_id
            case JobPreview(job_id=job_id):
                key = "preview", job_id
            case WorkerChanged(worker=worker):
                key = "worker", worker.worker
            case WorkerGone(worker=name):
                key = "worker", name
            case StatsChanged():
                key = "stats", ""
            case Outlook():
                key = "outlook", ""
            case _:
                raise TypeError(f"no event of the broker: {message!r}")
        kept.pop(key, None)
        kept[key] = message
    return list(kept.values())
