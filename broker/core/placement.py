"""Which of the workers that could take a job now gets it: a pure function of what is known of them.

A policy only orders candidates that are able and have room; whether a worker is able is roster.py's question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that is able to run the job and has a free credit."""

    worker: str
    #: Attempts it holds already.
    held: int
    #: Share of its card that is busy by its last heartbeat; 0 when unknown.
    gpu_busy: float
    vram_free_bytes: int


def least_loaded(candidates: Iterable[Candidate], *, avoid: str) -> Candidate | None:
    """The candidate that holds least, then the one with the idlest card.

    A worker named `avoid`, where the last attempt failed, comes last; it is still better than none.
    """
    return min(
        candidates,
        key=lambda c: (c.worker == avoid, c.held, c.gpu_busy, -c.vram_free_bytes, c.worker),
        default=None,
    )
