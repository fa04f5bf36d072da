"""What is worth publishing of all that changed since the last was told: the newest of each thing. Pure.

Watchers are told states, not steps: an event carries the whole of what it is about, so a newer one makes it needless.
A job that changed stands there itself: its event is made when it is published, once, however often it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from broker.core.jobs import Job
from broker.protocol.events import (
    JobGone,
    JobPreview,
    JobProgress,
    Outlook,
    StatsChanged,
    WorkerChanged,
    WorkerGone,
)

#: What each event is about.
_ABOUT: Final[dict[type[Any], Callable[[Any], tuple[str, str]]]] = {
    Job: lambda job: ("job", job.record.job_id),
    JobGone: lambda gone: ("job", gone.job_id),
    JobProgress: lambda report: ("progress", report.job_id),
    JobPreview: lambda preview: ("preview", preview.job_id),
    WorkerChanged: lambda changed: ("worker", changed.worker.worker),
    WorkerGone: lambda gone: ("worker", gone.worker),
    StatsChanged: lambda _: ("stats", ""),
    Outlook: lambda _: ("outlook", ""),
}


def newest(published: Iterable[Any]) -> list[Any]:
    """The last event about each thing, in the order of these; no progress that the job's own event shows too."""
    kept: dict[tuple[str, str], Any] = {}
    for message in published:
        about = _ABOUT.get(type(message))
        if about is None:
            raise TypeError(f"no event of the broker: {message!r}")
        key = what, name = about(message)
        if what == "job":
            kept.pop(("progress", name), None)
        elif what == "progress":
            shown = kept.get(("job", name))
            if isinstance(shown, Job) and shown.progress == message.progress:
                continue
        kept.pop(key, None)
        kept[key] = message
    return list(kept.values())


def can_wait(message: Any) -> bool:
    """Whether nobody minds to be told of it a moment later: that a job goes on."""
    return isinstance(message, Job) and not message.record.state.terminal
