"""Messages between a client (web, command line) and the broker: requests and their replies on the clients socket.

Each request carries a request_id that its one reply repeats. A reply that reports a change leaves only after the
change is on disk.
"""

from __future__ import annotations

from typing import Annotated

from broker.protocol.records import (
    Bytes,
    Expected,
    FleetStats,
    InputFile,
    JobId,
    JobState,
    JobView,
    Labels,
    Line,
    Millis,
    ModelLoad,
    Name,
    Needs,
    Owner,
    OwnerLoad,
    Priority,
    Prose,
    RequestId,
    Serial,
    SessionId,
    WorkerName,
    WorkerView,
)
from broker.protocol.schema import Blob, Many, Text, Whole
from broker.protocol.story import StoryLine
from broker.protocol.value import dataclass

# ---- requests of any client


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One job of a group, and how many bytes of the group's `workflow` and `form` are its own, in their order."""

    job_id: JobId
    workflow_bytes: Bytes
    form_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Queue a job. The same idempotency key and body give the same job; another body is a conflict.

    workflow: ComfyUI's API format as JSON. form: what the person filled in, as JSON, kept for display.
    With `parts` a group of jobs, all of them or none: job_id is then the group's id, workflow and form are those of
    its jobs one after another, and all else is said of each. Answered by JobReply, a group by GroupReply.
    """

    request_id: RequestId
    job_id: JobId
    idempotency_key: Annotated[str, Text(200)]  # empty: the job_id is the key
    owner: Owner
    title: Line
    template: Name
    labels: Labels
    priority: Priority
    needs: Needs
    pin: Annotated[str, Text(63)]  # the only worker that may run it; empty = any
    deadline_ms: Annotated[int, Whole(0, 366 * 86_400_000)] | None  # from now on; it is not begun later than that
    wait_for_worker: bool  # else it is refused when none of the workers that are here can run it
    files: Annotated[tuple[InputFile, ...], Many(256)]
    text: Prose  # beside the title: what its jobs are searched by
    parts: Annotated[tuple[Part, ...], Many(64)]  # empty: one job
    workflow: Annotated[bytes, Blob(32 << 20)]
    form: Annotated[bytes, Blob(8 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    request_id: RequestId
    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Queue a failed or cancelled job again, with all its attempts before it."""

    request_id: RequestId
    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Forget a job that is over, with its story and all that was submitted. Answered by Done.

    Its files stay. Its id and its key are remembered: a Submit that names them again is refused, never run again.
    """

    request_id: RequestId
    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """One job; with `full` also its workflow and form. Answered by JobReply."""

    request_id: RequestId
    job_id: JobId
    full: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """A page of jobs, newest first, by keyset. Empty filters match all. Answered by JobsReply."""

    request_id: RequestId
    owner: Owner
    states: Annotated[tuple[JobState, ...], Many(7)]
    template: Name
    label: Name
    group: Annotated[str, Text(36)]
    since_utc_ms: Millis | None  # submitted then or later
    until_utc_ms: Millis | None  # submitted before then
    text: Line  # words that title and text of a job hold, all of them
    after: Annotated[str, Text(64)]  # `next` of the page before; empty = from the newest
    limit: Annotated[int, Whole(1, 200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a page needs to begin: workers, live and recent jobs, counts, and where the event stream stands."""

    request_id: RequestId
    recent: Annotated[int, Whole(0, 200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    request_id: RequestId
    job_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who has how many jobs waiting and running, and for which models. Answered by LoadReply."""

    request_id: RequestId
    owner: Owner  # empty = everybody's


# ---- requests of an administrator


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Dispatch nothing more: to the whole fleet, or to one worker."""

    request_id: RequestId
    worker: Annotated[str, Text(63)]  # empty = the fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    request_id: RequestId
    worker: Annotated[str, Text(63)]  # empty = the fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainWorker:
    request_id: RequestId
    worker: WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeWorker:
    """Send the worker no work until a small workflow has shown that its ComfyUI works."""

    request_id: RequestId
    worker: WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartWorker:
    """Let the worker hand back what it holds and start its ComfyUI anew."""

    request_id: RequestId
    worker: WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Only this worker may run the job; an empty name lifts the pin."""

    request_id: RequestId
    job_id: JobId
    worker: Annotated[str, Text(63)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    request_id: RequestId
    job_id: JobId
    priority: Priority


# ---- replies


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The request changed nothing. code: a stable word (not_found, conflict, finished, full, …); text: for people."""

    request_id: RequestId
    code: Name
    text: Prose
    retry_after_ms: Millis  # 0 = do not retry as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReply:
    request_id: RequestId
    job: JobView
    existed: bool  # the answer to a repeated Submit
    workflow: Annotated[bytes, Blob(8 << 20)]
    form: Annotated[bytes, Blob(1 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReply:
    """With filters a page may be short, even empty, before the last: what is looked through for one is bounded."""

    request_id: RequestId
    jobs: Annotated[tuple[JobView, ...], Many(200)]
    next: Annotated[str, Text(64)]  # empty = that was the last page


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReply:
    """The group is on disk; its jobs are listed by its id."""

    request_id: RequestId
    group_id: JobId
    size: Annotated[int, Whole(2, 64)]
    existed: bool  # the answer to a repeated Submit


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersReply:
    request_id: RequestId
    workers: Annotated[tuple[WorkerView, ...], Many(5_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReply:
    """As of event `serial` of `stream`: apply the events after it, drop those up to it."""

    request_id: RequestId
    stream: SessionId
    serial: Serial
    workers: Annotated[tuple[WorkerView, ...], Many(5_000)]
    jobs: Annotated[tuple[JobView, ...], Many(1_000)]
    stats: FleetStats
    outlook: Annotated[tuple[Expected, ...], Many(200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsReply:
    request_id: RequestId
    stats: FleetStats


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReply:
    """Those with most jobs first. Models are told of everybody's jobs, or, for one owner, of theirs alone."""

    request_id: RequestId
    owners: Annotated[tuple[OwnerLoad, ...], Many(200)]
    models: Annotated[tuple[ModelLoad, ...], Many(100)]
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryReply:
    request_id: RequestId
    lines: Annotated[tuple[StoryLine, ...], Many(1_000)]
