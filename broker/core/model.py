"""The state of a job and of a worker, and the two tables of what may follow what.

Pure values: no clock, no socket, no store. Whatever is not in a table is illegal, and a test tries every absent pair.
"""

from __future__ import annotations

from typing import Final

from broker.protocol.records import (
    Failure,
    InputFile,
    JobState,
    Member,
    Needs,
    Output,
    Priority,
    Timings,
    Why,
    WorkerState,
)
from broker.protocol.value import dataclass, replace

#: Nodes and models of a job up to which something is remembered by its needs; for more it is found anew each time, as
#: the names weigh much.
NAMES_KEPT: Final = 256

#: state -> the states that may follow it.
JOB_MOVES: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.CANCELLED, JobState.FAILED}),
    JobState.LEASED: frozenset({JobState.RUNNING, JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED,
                                JobState.CANCELLING}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.QUEUED, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    # A person may ask for another try of a job that did not succeed.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}  # fmt: skip

WORKER_MOVES: Final[dict[WorkerState, frozenset[WorkerState]]] = {
    WorkerState.JOINED: frozenset({WorkerState.READY, WorkerState.BUSY, WorkerState.DRAINING, WorkerState.LOST,
                                   WorkerState.LEFT}),
    WorkerState.READY: frozenset({WorkerState.BUSY, WorkerState.DRAINING, WorkerState.LOST, WorkerState.LEFT}),
    WorkerState.BUSY: frozenset({WorkerState.READY, WorkerState.DRAINING, WorkerState.LOST, WorkerState.LEFT}),
    WorkerState.DRAINING: frozenset({WorkerState.LOST, WorkerState.LEFT}),
    WorkerState.LOST: frozenset({WorkerState.JOINED}),
    WorkerState.LEFT: frozenset({WorkerState.JOINED}),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """All of a job that is durable, but its workflow and form, which stay in the store. The fields are in the order in
    which rows.py gives them: what was submitted, then what has happened since."""

    job_id: str
    #: Order of submission, from 1, never reused: the queue's age and the pages' key.
    sequence: int
    owner: str
    idempotency_key: str
    #: sha256 over workflow, form and whatever else makes two submits the same.
    body_sha256: str
    title: str
    template: str
    labels: tuple[str, ...]
    needs: Needs
    files: tuple[InputFile, ...]
    created_utc_ms: int
    #: Its place among the jobs submitted with it; None: it came alone.
    group: Member | None = None
    state: JobState = JobState.QUEUED
    finished_utc_ms: int | None = None
    priority: Priority = 0
    #: The newest attempt's number; 0 = never dispatched. Grows for life, across retries by a person too.
    attempt: int = 0
    #: Attempts that infrastructure cost since the job was last submitted or retried by a person.
    burnt: int = 0
    #: Of those, how many took their worker with them.
    deaths: int = 0
    #: A card's memory was too small for an attempt of it; and only cards with this much are tried, 0 = any.
    ran_out: bool = False
    least_vram_bytes: int = 0
    #: Who has the attempt; empty when nobody has.
    worker: str = ""
    #: Who had the last one; another is preferred for the next.
    last_worker: str = ""
    #: What ComfyUI calls the attempt; empty before ACCEPTED.
    prompt_id: str = ""
    #: The only worker that may run it; empty = any.
    pin: str = ""
    #: Why the present or last attempt went to its worker, and how long it was expected to run, models loaded included.
    why: Why | None = None
    expect_ms: int | None = None
    #: It is not begun after that; None = whenever. The one wall clock that decides: it must outlive the broker.
    deadline_utc_ms: int | None = None
    started_utc_ms: int | None = None
    failure: Failure | None = None
    timings: Timings | None = None
    outputs: tuple[Output, ...] = ()

    @property
    def needed(self) -> Needs:
        """What a worker must have, as it turned out."""
        if self.least_vram_bytes <= self.needs.vram_bytes:
            return self.needs
        return replace(self.needs, vram_bytes=self.least_vram_bytes)
