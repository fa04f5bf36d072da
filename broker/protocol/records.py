"""The records that messages are made of, and the closed lists of words they use.

Every field is checked where it is read (schema.py). Times called utc_ms are for people; nothing decides by them.
"""

from __future__ import annotations

import enum
from typing import Annotated

from broker.protocol.ids import JOB_ID, SESSION_ID, SHA256, WORKER_NAME
from broker.protocol.schema import Many, Real, Text, Whole
from broker.protocol.value import dataclass

JobId = Annotated[str, Text(36, JOB_ID)]
SessionId = Annotated[str, Text(32, SESSION_ID)]
Sha256 = Annotated[str, Text(64, SHA256)]
WorkerName = Annotated[str, Text(63, WORKER_NAME)]
RequestId = Annotated[str, Text(32, SESSION_ID)]
Owner = Annotated[str, Text(64)]
Name = Annotated[str, Text(200)]
Line = Annotated[str, Text(500)]
Prose = Annotated[str, Text(4_000)]
Long = Annotated[str, Text(16_000)]
Bytes = Annotated[int, Whole(0, 2**53)]
Millis = Annotated[int, Whole(0, 2**53)]
Count = Annotated[int, Whole(0, 2**31)]
Serial = Annotated[int, Whole(0, 2**53)]
AttemptNumber = Annotated[int, Whole(1, 10_000)]
Priority = Annotated[int, Whole(-100, 100)]
Fraction = Annotated[float, Real(0.0, 1.0)]
Labels = Annotated[tuple[Name, ...], Many(32)]
#: Files that one attempt can have made.
OUTPUTS_MOST = 1_000


class JobState(enum.StrEnum):
    """Where a job is in its life; the last three are for ever."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Reason(enum.StrEnum):
    """Why an attempt or a job ended without a picture. Which of them are tried again: broker.core.retry."""

    INVALID_WORKFLOW = "invalid_workflow"  # ComfyUI refused the graph
    NODE_ERROR = "node_error"  # a node raised
    OUT_OF_MEMORY = "out_of_memory"  # the card was too small this time
    INPUT_MISSING = "input_missing"  # a file the job needs is not in the store
    OUTPUT_LOST = "output_lost"  # ComfyUI finished, but its file could not be fetched whole
    COMFY_UNREACHABLE = "comfy_unreachable"  # ComfyUI did not take the prompt
    COMFY_LOST = "comfy_lost"  # ComfyUI restarted or forgot the prompt
    INTERRUPTED = "interrupted"  # somebody else interrupted our prompt
    POISONED = "poisoned"  # the card's process fails everything until it restarts
    STALLED = "stalled"  # no sign of progress for the stall limit
    TIMEOUT = "timeout"  # start-to-close limit
    WORKER_LOST = "worker_lost"  # silent past its lease, or restarted without the prompt
    NOT_ACCEPTED = "not_accepted"  # dispatched, never confirmed
    DRAINING = "draining"  # handed back by a worker that is leaving
    POISON_JOB = "poison_job"  # it was running on too many workers that died
    EXPIRED = "expired"  # its deadline passed in the queue
    CANCELLED = "cancelled"


class Phase(enum.StrEnum):
    """How far a worker is with an attempt it holds."""

    STAGING = "staging"  # fetching inputs, posting the prompt
    STAGED = "staged"  # in ComfyUI's own queue
    RUNNING = "running"
    FINISHING = "finishing"  # fetching and storing outputs
    ENDED = "ended"  # COMPLETE or FAIL sent, RECORDED awaited


class Why(enum.StrEnum):
    """Why a worker was chosen for an attempt."""

    ONLY_ONE = "only_one"  # no other can run it
    PINNED = "pinned"
    HOLDS_MODELS = "holds_models"  # others would have to load them
    WAITED_FOR_MODELS = "waited_for_models"  # it was let wait for that worker, though others had room
    WAITED_FOR_FASTER = "waited_for_faster"  # the same, for no models' sake: that one has it done sooner
    MOST_WAITS = "most_waits"  # it loads the models for which most work waits, before the turn of others
    SOONEST = "soonest"  # the least expected finish
    MOVED = "moved"  # taken back from a worker that would have done it later
    LEAST_LOADED = "least_loaded"
    TURN = "turn"  # it was that worker's turn


class ProgressKind(enum.StrEnum):
    STARTED = "started"
    NODE = "node"
    STEP = "step"
    TEXT = "text"
    PREVIEW = "preview"


class WorkerState(enum.StrEnum):
    """What a worker can be given."""

    JOINED = "joined"  # known, has not asked for work yet
    READY = "ready"  # holds nothing and has asked
    BUSY = "busy"
    DRAINING = "draining"  # finishes what it holds, takes no more
    LOST = "lost"  # silent past its lease
    LEFT = "left"  # said goodbye


class BreakerState(enum.StrEnum):
    """Whether a worker gets work, as far as its own health goes."""

    CLOSED = "closed"  # it does
    OPEN = "open"  # too much failed there in a row: none until a probe succeeds
    PROBING = "probing"  # none but a probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What keeps a worker from work, if anything does."""

    state: BreakerState
    why: Line  # empty while closed
    since_utc_ms: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The card, as the worker found it at announce; all empty when it does not know."""

    name: Name
    kind: Name  # "cuda", "cpu", …
    vram_total_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a heartbeat measured. None = this machine cannot tell."""

    gpu_busy: Fraction | None  # share of the last second
    vram_free_bytes: Bytes
    vram_total_bytes: Bytes
    gpu_celsius: Annotated[int, Whole(-50, 200)] | None
    gpu_watts: Annotated[int, Whole(0, 5_000)] | None
    ram_free_bytes: Bytes
    ram_total_bytes: Bytes
    disk_free_bytes: Bytes | None  # where the worker keeps files on their way
    cpu_busy: Fraction
    comfy_queue: Count  # prompts in ComfyUI's queue, ours and others'
    comfy_fault: Line  # why its ComfyUI does not answer; empty while it does


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A stored file that the workflow names; staged into ComfyUI's input folder before the prompt."""

    name: Name  # as the workflow says it
    sha256: Sha256
    size_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A finished file, already durable in the broker's file store."""

    node_id: Name
    name: Name  # ComfyUI's file name
    kind: Name  # "output", "temp" or "socket"
    media_type: Name
    sha256: Sha256
    size_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a worker must have for this job; the broker compares, and never parses a workflow."""

    nodes: Annotated[tuple[Name, ...], Many(2_000)]
    models: Annotated[tuple[Line, ...], Many(500)]  # opaque, "kind/name"
    labels: Labels  # the worker must carry all of them
    vram_bytes: Bytes
    pixels: Serial  # width x height x batch, for estimates; 0 = unknown
    steps: Count
    signature: Name  # groups alike workflows


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A job's place among the jobs that were submitted as one."""

    group_id: JobId
    index: Annotated[int, Whole(0, 63)]
    size: Annotated[int, Whole(2, 64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An attempt as its worker sees it."""

    job_id: JobId
    attempt: AttemptNumber
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an attempt may take, measured by the worker."""

    start_to_close_ms: Millis
    stall_ms: Millis
    hung_ms: Millis  # a run that takes longer must be hung, by what such runs took before; 0 = not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """An attempt leased to this worker's name, offered back to a new session of it."""

    job_id: JobId
    attempt: AttemptNumber
    prompt_id: Name  # empty: never accepted
    cancelling: bool
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt ended, for machines (reason) and people (the rest)."""

    reason: Reason
    text: Prose
    node_id: Name
    node_type: Name
    traceback: Long


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds of each part of an attempt, by the worker's clock."""

    staging_ms: Millis
    waiting_ms: Millis  # in ComfyUI's own queue
    running_ms: Millis
    loading_ms: Millis  # of running_ms: in nodes that load models
    finishing_ms: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The newest known step of a running attempt; lossy, latest wins."""

    kind: ProgressKind
    node_id: Name
    node_type: Name
    value: Count
    most: Count
    fraction: Fraction  # of the whole prompt
    text: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as clients see it."""

    job_id: JobId
    owner: Owner
    state: JobState
    title: Line
    template: Name
    labels: Labels
    group: Member | None
    priority: Priority
    created_utc_ms: Millis
    started_utc_ms: Millis | None  # ComfyUI began the present or last attempt
    finished_utc_ms: Millis | None
    attempt: Annotated[int, Whole(0, 10_000)]  # 0 = never dispatched
    burnt: Annotated[int, Whole(0, 10_000)]  # earlier ones that failed, since a person asked for it: a move is none
    worker: Annotated[str, Text(63)]  # empty = none
    prompt_id: Name
    phase: Phase | None
    progress: Progress | None
    failure: Failure | None
    timings: Timings | None
    outputs: Annotated[tuple[Output, ...], Many(OUTPUTS_MOST)]
    why: Why | None  # that worker was chosen for the present or last attempt
    expect_ms: Millis | None  # how long it was then expected to run, models loaded included
    deadline_utc_ms: Millis | None  # it is not begun after that
    pin: Annotated[str, Text(63)]  # the only worker that may run it; empty = any


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker as clients see it."""

    worker: WorkerName
    session: SessionId
    state: WorkerState
    paused: bool
    simulated: bool
    version: Name
    comfyui_version: Name
    capabilities: Sha256 | None  # None: its ComfyUI has not answered yet, and all about it is unknown and empty
    gpu: Gpu
    stats: Stats | None
    labels: Labels
    breaker: Breaker
    restartable: bool  # it can start its ComfyUI anew
    contested: bool  # other processes call themselves so too, and are not let in
    held: Annotated[tuple[Held, ...], Many(64)]
    succeeded: Count
    failed: Count
    since_utc_ms: Millis
    resident: Annotated[tuple[Line, ...], Many(64)]  # models that its ComfyUI is believed to hold
    jobs_per_hour: Count  # that succeeded in the last hour
    speed: Annotated[float, Real(0.0, 1_000.0)]  # learnt; the reference card is 1
    load_ms: Millis | None  # a usual load of models, learnt; None before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStats:
    """Counts for people and for autoscalers."""

    queued: Count
    leased: Count
    running: Count
    cancelling: Count
    succeeded: Serial
    failed: Serial
    cancelled: Serial
    workers: Count
    paused: bool
    disk_full: bool  # nothing is taken in or begun before there is room
    oldest_queued_utc_ms: Millis | None
    invalid_messages: Serial
    uptime_ms: Millis
    #: Of what attempts were expected to take, relative to what they took: the median of the last 500.
    expected_error: Annotated[float, Real(0.0, 1_000.0)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A waiting job, and when it is likely to begin as things stand."""

    job_id: JobId
    owner: Owner
    place: Count  # in the queue of the whole fleet, from 1
    start_utc_ms: Millis | None  # None: no worker that is here can run it


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLoad:
    owner: Owner
    queued: Count  # in the queue, or held ready by a worker
    running: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad:
    models: Annotated[tuple[Line, ...], Many(500)]
    queued: Count
    running: Count
