"""Whether a worker gets work and what speaks against it, as it is remembered; breaker.py and roster.py decide."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from broker.protocol.records import BreakerState, WorkerState


@dataclasses.dataclass(slots=True)
class Health:
    """Whether a worker's name gets work, and what speaks against it; breaker.py decides."""

    state: BreakerState = BreakerState.CLOSED
    why: str = ""
    since_utc_ms: int = 0
    #: What failed there since anything last succeeded.
    against: set[str] = dataclasses.field(default_factory=set)
    #: Failed probes in a row, and openings soon after the last closing.
    setbacks: int = 0
    closed_ms: int | None = None
    #: When a session that another process had replaced was heard again.
    contests: list[int] = dataclasses.field(default_factory=list)
    #: The session that was sent the probe of this number and has not answered; empty = none was.
    probed: str = ""
    probe: int = 0


class Standing(NamedTuple):
    """Of a worker, what says whether it is there and gets work, and why not."""

    state: WorkerState
    paused: bool
    breaker: BreakerState
    why: str
