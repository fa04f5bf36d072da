"""The records of what happened to a job, and of why a worker was given it."""

from __future__ import annotations

from typing import Annotated

from broker.protocol.records import Line, Millis, Name, Prose, Why, WorkerName
from broker.protocol.schema import Many, Text, Whole
from broker.protocol.value import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A worker that could have been given an attempt, and what was expected of it."""

    worker: WorkerName
    wait_ms: Millis  # until it has done what it holds
    load_ms: Millis
    run_ms: Millis
    missing_models: Annotated[tuple[Line, ...], Many(16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Why an attempt went to a worker."""

    policy: Name
    why: Why
    worker: WorkerName
    waited_ms: Millis  # for a better worker, though others had room
    waited_for: Annotated[str, Text(63)]  # that better worker; empty = it did not wait
    instead: Annotated[str, Text(63)]  # the one with room that could have had it at once; empty = it did not wait
    candidates: Annotated[tuple[Considered, ...], Many(8)]  # the soonest first


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryLine:
    """One thing that happened to a job."""

    utc_ms: Millis
    what: Name  # "queued", "leased", …
    attempt: Annotated[int, Whole(0, 10_000)]
    burnt: Annotated[int, Whole(0, 10_000)]  # as of JobView
    worker: Annotated[str, Text(63)]
    text: Prose
    decision: Decision | None  # of a lease
