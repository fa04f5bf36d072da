"""What the broker publishes, each under a topic.

Every event but a preview carries (stream, serial): a stream is one process life of the broker, serials count by one,
and a gap means a lost event: ask for a Snapshot. Previews are lossy and carry none.
"""

from __future__ import annotations

from typing import Annotated

from broker.protocol.records import (
    AttemptNumber,
    Expected,
    FleetStats,
    JobId,
    JobView,
    Name,
    Owner,
    Progress,
    Serial,
    SessionId,
    WorkerName,
    WorkerView,
)
from broker.protocol.schema import Blob, Many
from broker.protocol.value import dataclass

#: One topic a kind of event: a subscriber picks kinds, and the web takes all but may shed previews alone.
TOPIC_JOB, TOPIC_PROGRESS, TOPIC_PREVIEW, TOPIC_WORKER, TOPIC_STATS = (
    b"job",
    b"prog",
    b"view",
    b"work",
    b"stat",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    stream: SessionId
    serial: Serial
    job: JobView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGone:
    """The job was deleted."""

    stream: SessionId
    serial: Serial
    job_id: JobId
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    stream: SessionId
    serial: Serial
    job_id: JobId
    attempt: AttemptNumber
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPreview:
    job_id: JobId
    attempt: AttemptNumber
    media_type: Name
    image: Annotated[bytes, Blob(1 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanged:
    stream: SessionId
    serial: Serial
    worker: WorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGone:
    stream: SessionId
    serial: Serial
    worker: WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The first of the waiting jobs, in the order in which they are likely to be served."""

    stream: SessionId
    serial: Serial
    queue: Annotated[tuple[Expected, ...], Many(200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsChanged:
    stream: SessionId
    serial: Serial
    stats: FleetStats
