"""What is told of a run, and of many: makespan, waiting, loads, shares. Seconds and shares, medians over seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from scripts.laboratory.arena import Run


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    #: From the first submit to the last picture.
    makespan_s: float
    #: The least makespan any policy could have had (bound.py).
    bound_s: float
    #: From a job's submit to the start of the attempt that made it.
    wait_p50_s: float
    wait_p95_s: float
    #: From a job's submit to its picture.
    done_p50_s: float
    done_p95_s: float
    #: The same without the jobs of the owner who has most; nan where there is no such owner.
    rest_p95_s: float
    #: Times a model was read into a card's memory.
    loads: float
    #: Share of the cards' time, to the end of the last picture, in which they loaded or ran what counted.
    busy: float
    #: Jain's index over what each owner was given while all had work; nan when there was no such time.
    jain: float
    #: How long only cards slower than the fastest kind still worked at the end.
    tail_s: float
    #: Card time thrown away by deaths.
    wasted_s: float


def measure(run: Run, bound_ms: float) -> Measures:
    ends = [ran.ended_ms for ran in run.ran]
    waits = sorted((ran.began_ms - ran.job.submit_ms) / 1_000 for ran in run.ran)
    done = sorted((ran.ended_ms - ran.job.submit_ms) / 1_000 for ran in run.ran)
    makespan_ms = max(ends)
    return Measures(
        makespan_s=makespan_ms / 1_000,
        bound_s=bound_ms / 1_000,
        wait_p50_s=_share(waits, 0.5),
        wait_p95_s=_share(waits, 0.95),
        done_p50_s=_share(done, 0.5),
        done_p95_s=_share(done, 0.95),
        rest_p95_s=_rest_p95_s(run),
        loads=run.loads,
        busy=run.busy_ms / (makespan_ms * len(run.scenario.cards)),
        jain=fairness(run),
        tail_s=_tail_ms(run) / 1_000,
        wasted_s=run.wasted_ms / 1_000,
    )


def median(many: Sequence[Measures]) -> Measures:
    names = [field.name for field in dataclasses.fields(Measures)]
    return Measures(**{name: statistics.median(getattr(one, name) for one in many) for name in names})


def fairness(run: Run) -> float:
    """From the moment the last owner has come to the one in which the first owner's last job begins."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for ran in run.ran:
        owner = ran.job.owner
        first[owner] = min(first.get(owner, ran.job.submit_ms), ran.job.submit_ms)
        last[owner] = max(last.get(owner, 0), ran.began_ms)
    from_ms, until_ms = max(first.values()), min(last.values())
    if len(first) < 2 or from_ms >= until_ms:
        return math.nan
    given: dict[str, float] = defaultdict(float)
    for ran in run.ran:
        if from_ms <= ran.began_ms <= until_ms:
            given[ran.job.owner] += ran.job.work
    return jain([given[owner] for owner in first])


def _rest_p95_s(run: Run) -> float:
    (greediest, most), *others = Counter(ran.job.owner for ran in run.ran).most_common(2)
    if not others or others[0][1] == most:
        return math.nan
    done = sorted((r.ended_ms - r.job.submit_ms) / 1_000 for r in run.ran if r.job.owner != greediest)
    return _share(done, 0.95)


def jain(shares: Sequence[float]) -> float:
    """1 when all shares are equal, 1/n when one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else math.nan


def _tail_ms(run: Run) -> int:
    cards = run.scenario.cards
    fastest = min(card.step_s for card in cards)
    quick = max((r.ended_ms for r in run.ran if cards[r.card].step_s == fastest), default=0)
    return max(0, max(r.ended_ms for r in run.ran) - quick)


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
