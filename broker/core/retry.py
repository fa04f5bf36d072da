"""Whether an attempt that ended is followed by another: one table and one decision.

Only infrastructure is tried again. An attempt that the fleet took away for its own reasons burns none of the job's.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from broker.core.rules import Rules
from broker.protocol.records import Failure, Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    again: bool
    #: Counts against max_attempts.
    burns: bool = True
    #: May have been the job that took the worker down.
    death: bool = False
    #: Speaks against the worker, not the job: see breaker.py.
    blames: bool = False


VERDICTS: Final[dict[Reason, Verdict]] = {
    Reason.INVALID_WORKFLOW: Verdict(again=False),
    Reason.NODE_ERROR: Verdict(again=False),
    Reason.OUT_OF_MEMORY: Verdict(again=True),
    Reason.INPUT_MISSING: Verdict(again=False),
    Reason.OUTPUT_LOST: Verdict(again=True, blames=True),
    Reason.COMFY_UNREACHABLE: Verdict(again=True, blames=True),
    Reason.COMFY_LOST: Verdict(again=True, death=True, blames=True),
    Reason.INTERRUPTED: Verdict(again=True),
    Reason.POISONED: Verdict(again=True, blames=True),
    Reason.STALLED: Verdict(again=True, blames=True),
    Reason.TIMEOUT: Verdict(again=False),
    Reason.WORKER_LOST: Verdict(again=True, death=True, blames=True),
    Reason.NOT_ACCEPTED: Verdict(again=True, blames=True),
    Reason.DRAINING: Verdict(again=True, burns=False),
    Reason.POISON_JOB: Verdict(again=False),
    Reason.EXPIRED: Verdict(again=False),
    Reason.CANCELLED: Verdict(again=False),
}


#: The highest number an attempt can have: a job handed back without blame must end some day too.
ATTEMPTS_MOST: Final = 10_000


def failure(reason: Reason, text: str) -> Failure:
    """A failure that the broker itself found."""
    return Failure(reason=reason, text=text, node_id="", node_type="", traceback="")


@dataclasses.dataclass(frozen=True, slots=True)
class Requeue:
    burnt: int
    deaths: int
    backoff_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    reason: Reason


def decide(
    reason: Reason, *, attempt: int, burnt: int, deaths: int, jitter: float, rules: Rules, ran_out: bool = False
) -> Requeue | GiveUp:
    """What follows the attempt of this number that ended for `reason`, after `burnt` and `deaths` earlier ones.

    ran_out: a card's memory was too small for an earlier one; the second time is enough.
    jitter: uniform in [0, 1); the backoff is "full jitter": uniform up to base x 2^(burnt-1), capped.
    """
    verdict = VERDICTS[reason]
    if not verdict.again or (ran_out and reason is Reason.OUT_OF_MEMORY):
        return GiveUp(reason)
    burnt += verdict.burns
    deaths += verdict.death
    if deaths >= rules.max_deaths:
        return GiveUp(Reason.POISON_JOB)
    if burnt >= rules.max_attempts or attempt >= ATTEMPTS_MOST:
        return GiveUp(reason)
    if not verdict.burns:
        return Requeue(burnt, deaths, 0)
    ceiling = min(rules.backoff_cap_ms, rules.backoff_base_ms << (burnt - 1))
    return Requeue(burnt, deaths, int(jitter * ceiling))


def forgiven(reason: Reason, *, burnt: int, deaths: int) -> tuple[int, int]:
    """`burnt` and `deaths` as they were before an end for `reason` that turned out to be none."""
    verdict = VERDICTS[reason]
    return burnt - verdict.burns, deaths - verdict.death
