"""Which worker gets a job, or whether it waits for one that would finish it sooner: policies as pure functions.

A policy sees the workers that are able to run the job, with what is expected of each, and answers with one of them.
Whom it sees is decided in placing.py; what is expected, in estimates.py. docs/placement.md says why it is so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from broker.protocol.records import Why


class Candidate(NamedTuple):
    """A worker that is able to run the job. A tuple, as many are made for each decision."""

    worker: str
    #: Can be sent something now. Others are seen so that a job may wait for them.
    room: bool
    #: Attempts it holds already.
    held: int
    #: Until it has done what it holds; then until the models are loaded; then until the job is done.
    wait_ms: int
    load_ms: int
    run_ms: int
    #: Models that it would have to load.
    missing: tuple[str, ...] = ()
    #: Attempts it has been given since it joined, and how fast it is; the reference card is 1.
    given: int = 0
    speed: float = 1.0
    #: The job's last attempt failed here.
    failed_here: bool = False

    @property
    def finish_ms(self) -> int:
        return self.wait_ms + self.load_ms + self.run_ms


class Waiting(NamedTuple):
    """The queue, as far as a decision needs it."""

    #: How many jobs of this one's length need the same models and wait, this one included: a film is many pictures.
    alike: float = 1
    #: All the others, too.
    others: float = 0
    #: The job has waited for a better worker as long as it may.
    patient: bool = True


class Choice(NamedTuple):
    worker: str
    why: Why
    #: Whether to send it now; else the job waits for that worker.
    now: bool = True


Policy = Callable[[Sequence[Candidate], Waiting], Choice]


def finish_time(candidates: Sequence[Candidate], waiting: Waiting) -> Choice:
    """The least expected finish: wait for what is held, load the models that are missing, run.

    The job waits for a worker without room if that one would still finish it sooner than any with room; but only if
    such workers would have finished everything that waits before it, too. So no models are loaded twice for want of
    seconds, and no last job of a burst is begun on a slow card.
    """
    best = min(candidates, key=_soonest)
    if not best.room:
        ready = min((c for c in candidates if c.room), key=_soonest)
        if not waiting.patient or _served_before(ready, candidates, waiting) < waiting.alike:
            best = ready
    return Choice(best.worker, _why(best, candidates), best.room)


def affinity_only(candidates: Sequence[Candidate], waiting: Waiting) -> Choice:
    """Whoever holds the models, and of these who holds least work; others only when nobody with room has them."""
    best = min(_with_room(candidates), key=lambda c: (c.failed_here, len(c.missing), c.held, c.worker))
    return Choice(best.worker, _why(best, candidates))


def least_loaded(candidates: Sequence[Candidate], waiting: Waiting) -> Choice:
    """Whoever holds least work, models and speed aside."""
    best = min(_with_room(candidates), key=lambda c: (c.failed_here, c.held, c.wait_ms, c.worker))
    return Choice(best.worker, Why.LEAST_LOADED)


def round_robin_weighted(candidates: Sequence[Candidate], waiting: Waiting) -> Choice:
    """Each in its turn, a card twice as fast twice as often."""
    best = min(_with_room(candidates), key=lambda c: (c.failed_here, (c.given + 1) / c.speed, c.worker))
    return Choice(best.worker, Why.TURN)


POLICIES: Final[dict[str, Policy]] = {
    policy.__name__: policy for policy in (finish_time, affinity_only, least_loaded, round_robin_weighted)
}


def _soonest(candidate: Candidate) -> tuple[bool, int, int, float, str]:
    return candidate.failed_here, candidate.finish_ms, candidate.held, -candidate.speed, candidate.worker


def _with_room(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.room]


def _served_before(ready: Candidate, candidates: Sequence[Candidate], waiting: Waiting) -> float:
    """How many of the jobs alike the workers without room would finish before `ready` had finished one.

    Those that hold the models take these jobs first; the rest of them serve everybody else's before.
    """
    holders = strangers = 0
    for other in candidates:
        spare_ms = ready.finish_ms - other.finish_ms
        if other.room or other.failed_here or spare_ms <= 0:
            continue
        jobs = 1 + spare_ms // max(1, other.run_ms)
        if other.missing or not ready.missing:
            strangers += jobs
        else:
            holders += jobs
    return holders + max(0, strangers - waiting.others)


def _why(chosen: Candidate, candidates: Sequence[Candidate]) -> Why:
    if len(candidates) == 1:
        return Why.ONLY_ONE
    if not chosen.missing and any(other.missing for other in candidates):
        return Why.HOLDS_MODELS
    return Why.SOONEST
