"""Messages between a worker and the broker, both ways, on the workers socket.

A fence is (job, attempt, session): whatever carries a stale one changes nothing and is answered ABANDON.
"""

from __future__ import annotations

from typing import Annotated

from broker.protocol.records import (
    OUTPUTS_MOST,
    AttemptNumber,
    Count,
    Failure,
    Gpu,
    Held,
    InputFile,
    JobId,
    Labels,
    Limits,
    Line,
    Millis,
    Name,
    Output,
    Progress,
    Resume,
    Serial,
    SessionId,
    Sha256,
    Stats,
    Timings,
    WorkerName,
)
from broker.protocol.schema import Blob, Many
from broker.protocol.value import dataclass

# ---- worker → broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """I exist, this is my card, this is what I still hold. Answered by Welcome or Refused.

    Said again when what I am has changed; so is one whose ComfyUI had never answered, once it does.
    """

    worker: WorkerName
    session: SessionId
    version: Name
    comfyui_version: Name
    simulated: bool
    capabilities: Sha256 | None  # None: its ComfyUI has not answered yet, and all about it is unknown and empty
    gpu: Gpu
    labels: Labels
    restartable: bool  # it can start its ComfyUI anew
    held: Annotated[tuple[Held, ...], Many(64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the capability document with this digest offers; the document itself is a stored file of that name."""

    digest: Sha256
    nodes: Annotated[tuple[Name, ...], Many(20_000)]
    models: Annotated[tuple[Line, ...], Many(20_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """I had room for `credits` more attempts when the newest dispatch I had seen was `seen`.

    A level, not a token: repeating one does no harm, an older `serial` is ignored, and Beat shows that one was lost.
    """

    serial: Serial
    credits: Count
    seen: Serial


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """I live. Answered by Beat. Never implies ready."""

    stats: Stats
    held: Annotated[tuple[Held, ...], Many(64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The prompt is in ComfyUI's queue, or (after a restart of the worker) still there."""

    job_id: JobId
    attempt: AttemptNumber
    prompt_id: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """Lossy; latest `serial` wins. `image` holds a preview picture or nothing."""

    job_id: JobId
    attempt: AttemptNumber
    serial: Serial
    progress: Progress
    media_type: Name
    image: Annotated[bytes, Blob(1 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The attempt succeeded and every output is in the file store. Repeated until Recorded."""

    job_id: JobId
    attempt: AttemptNumber
    outputs: Annotated[tuple[Output, ...], Many(OUTPUTS_MOST)]
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The attempt ended otherwise. Repeated until Recorded."""

    job_id: JobId
    attempt: AttemptNumber
    failure: Failure
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """I finish what I hold and take no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Goodbye; I hold nothing that I have not handed back."""

    why: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What came of the probe with this serial."""

    serial: Serial
    passed: bool
    why: Line  # empty when it passed


# ---- broker → worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The session is known. Whatever `resume` names was leased to an earlier session of this worker."""

    broker: SessionId  # one process life of the broker
    heartbeat_ms: Millis
    lease_ms: Millis
    need_capabilities: bool
    resume: Annotated[tuple[Resume, ...], Many(64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No work for this session. `retry` false: exit with `why`, somebody must mend it."""

    why: Line
    retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The answer to a heartbeat: the broker lives too."""

    need_capabilities: bool  # send Capabilities (again): until then no job is thought able to run here
    ready: Serial  # of the newest Ready heard, 0 = none: send it again if there is a newer one


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Run this. Confirm with Accepted, or it is taken back."""

    job_id: JobId
    attempt: AttemptNumber
    serial: Serial  # grows for the life of the broker; a worker's `seen` starts at 0 for each Welcome.broker
    files: Annotated[tuple[InputFile, ...], Many(256)]
    limits: Limits
    workflow: Annotated[bytes, Blob(8 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """This attempt is not yours: take it back from ComfyUI (only its own prompt_id) and forget it."""

    job_id: JobId
    attempt: AttemptNumber
    why: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAttempt:
    """Stop this attempt; report how it ended (Fail cancelled, or Complete if it was too late)."""

    job_id: JobId
    attempt: AttemptNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The end you reported is on disk: drop it."""

    job_id: JobId
    attempt: AttemptNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsMissing:
    """Complete named files that the store does not hold: send them again, then Complete again."""

    job_id: JobId
    attempt: AttemptNumber
    missing: Annotated[tuple[Sha256, ...], Many(OUTPUTS_MOST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Finish what you hold, take no more, leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Run the small workflow that shows whether your ComfyUI works, and answer Probed."""

    serial: Serial


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Hand back what you hold, then start your ComfyUI anew."""

    why: Line


# ---- either way


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """Your last message broke the contract. Sent to whoever sent it, on every socket."""

    code: Name
    detail: Line
    count: Serial
