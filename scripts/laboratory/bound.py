"""The least makespan that any policy could reach, all-knowing ones included.

The largest of these, each of which nothing can undercut:
  work      the moment by which the able cards, at full tilt, can have done all work that fits nowhere else. A card
            that works at all loads one model first; when there are more models than cards, the rest of the loads are
            paid where they cost least. Asked of all jobs, and of the later ones from each submit on.
  shared    where all cards are alike: the moment by which the models can have shared them. Tie each model to the cards
            that load it, and models and cards fall into parts; in each of them there were at least as many loads as
            models and cards together, less one.
  pictures  the moment by which the cards can have finished so many whole pictures, each card the shortest ones.
  longest   each job, alone on the best card from its submit on, with its models loaded for it if it is the first.
Cards that are down or shared with others count for what they have left.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from comfyui.simulator.cards import Card
from scripts.laboratory.traffic import Job, Model, Scenario

Lost = tuple[int, int, float]
#: Models of which all ways to part them are tried.
MOST_SHARED = 12


class Capacity:
    """How many milliseconds of itself alone each of `count` like cards has given by a moment."""

    def __init__(self, card: Card, lost: Sequence[Lost], count: int) -> None:
        """lost: (from_ms, until_ms, what share is left)."""
        self.card, self.count = card, count
        self._at = sorted({0, *(at for begin, end, _ in lost for at in (begin, end))})
        self._rate = [min((left for begin, end, left in lost if begin <= at < end), default=1.0) for at in self._at]
        self._sum = [0.0]
        for n in range(1, len(self._at)):
            self._sum.append(self._sum[-1] + (self._at[n] - self._at[n - 1]) * self._rate[n - 1])

    def by(self, at_ms: float) -> float:
        n = bisect.bisect_right(self._at, at_ms) - 1
        return self._sum[n] + (at_ms - self._at[n]) * self._rate[n]

    def load_ms(self, size_bytes: int) -> float:
        return 1_000 * size_bytes / self.card.load_bytes_per_s


def capacities(scenario: Scenario) -> list[Capacity]:
    lost: dict[int, list[Lost]] = defaultdict(list)
    for death in scenario.deaths:
        lost[death.card].append((death.at_ms, death.at_ms + death.down_ms, 0.0))
    for other in scenario.foreign:
        lost[other.card].append((other.from_ms, other.until_ms, other.share))
    alike = Counter((card, tuple(lost[number])) for number, card in enumerate(scenario.cards))
    return [Capacity(card, gone, count) for (card, gone), count in alike.items()]


def least_makespan_ms(scenario: Scenario) -> float:
    """From time 0, when the first job may come, to the end of the last picture."""
    cards = capacities(scenario)
    floors = sorted({job.vram_bytes for job in scenario.jobs})
    best = max(_alone_ms(job, cards) for job in scenario.jobs)
    for floor in floors:
        able = [card for card in cards if card.card.vram_bytes >= floor]
        bound = [job for job in scenario.jobs if job.vram_bytes >= floor]
        best = max(best, _pictures_ms(bound, able))
        starts = sorted({job.submit_ms for job in bound})
        for since_ms in starts[:: max(1, len(starts) // 40)]:
            best = max(best, _work_ms([job for job in bound if job.submit_ms >= since_ms], able, since_ms))
    return max(best, _shared_ms(scenario, best))


def _alone_ms(job: Job, cards: Sequence[Capacity]) -> float:
    """Its end on the best card, whatever that has loaded by then; a job at time 0 finds nothing loaded anywhere."""
    load_bytes = 0 if job.submit_ms else sum(model.size_bytes for model in job.models)
    able = [card for card in cards if card.card.vram_bytes >= job.vram_bytes]
    return job.submit_ms + min(1_000 * job.work * c.card.step_s + c.load_ms(load_bytes) for c in able)


def _work_ms(jobs: Sequence[Job], able: Sequence[Capacity], since_ms: int) -> float:
    """When so much work can be done at the earliest, if none of it begins before `since_ms`."""
    work = sum(job.work for job in jobs)
    sizes = {job.models: sum(model.size_bytes for model in job.models) for job in jobs}
    cold = since_ms == 0
    least_bytes = min(sizes.values()) if cold else 0
    spare_loads = max(0, len({models[0] for models in sizes}) - sum(card.count for card in able)) if cold else 0
    extra = spare_loads * min(c.load_ms(least_bytes) / 1_000 / c.card.step_s for c in able)

    def done(at_ms: float) -> bool:
        given = sum(
            card.count
            * max(0.0, card.by(at_ms) - card.by(since_ms) - card.load_ms(least_bytes))
            / (1_000 * card.card.step_s)
            for card in able
        )
        return given >= work + extra

    return _first(done, since_ms)


def _shared_ms(scenario: Scenario, best_ms: float) -> float:
    """When the models can have shared the cards at the earliest, from what is known already on."""
    models = sorted({model for job in scenario.jobs for model in job.models}, key=lambda model: model.name)
    each_one = all(len(job.models) == 1 for job in scenario.jobs)
    if len(set(scenario.cards)) > 1 or scenario.deaths or scenario.foreign or not each_one or len(models) > MOST_SHARED:
        return 0.0
    load_ms = min(1_000 * model.size_bytes / scenario.cards[0].load_bytes_per_s for model in models)
    work_ms: dict[Model, float] = defaultdict(float)
    for job in scenario.jobs:
        work_ms[job.models[0]] += 1_000 * job.work * scenario.cards[0].step_s
    #: By set of models, as bits: what is to be run, and the loads but those that each card of a part begins with.
    needs_ms = [0.0]
    for part in range(1, 1 << len(models)):
        before = part & (part - 1)
        lowest = models[(part ^ before).bit_length() - 1]
        needs_ms.append(needs_ms[before] + work_ms[lowest] + (load_ms if before else 0))
    return _first(lambda at_ms: _fewest_cards(needs_ms, at_ms - load_ms) <= len(scenario.cards), best_ms)


def _fewest_cards(needs_ms: Sequence[float], each_ms: float) -> int:
    """On how many cards, each so long, these models can be run, however they are parted."""
    alone = [math.ceil(ms / each_ms) for ms in needs_ms]
    fewest = list(alone)
    for models in range(1, len(alone)):
        others = models & (models - 1)
        lowest = models ^ others
        part = others
        while part:
            part = (part - 1) & others
            fewest[models] = min(fewest[models], alone[part | lowest] + fewest[others ^ part])
    return fewest[-1]


def _pictures_ms(jobs: Sequence[Job], able: Sequence[Capacity]) -> float:
    """When so many whole pictures can be finished at the earliest, if every card gets the shortest ones."""
    shortest = sorted(job.work for job in jobs)
    sums = [0.0]
    for work in shortest:
        sums.append(sums[-1] + work)
    first_ms = min(job.submit_ms for job in jobs)
    load_bytes = min(sum(model.size_bytes for model in job.models) for job in jobs) if first_ms == 0 else 0

    def done(at_ms: float) -> bool:
        finished = 0
        for card in able:
            room = (card.by(at_ms) - card.by(first_ms) - card.load_ms(load_bytes)) / (1_000 * card.card.step_s)
            finished += card.count * (bisect.bisect_right(sums, room) - 1) if room > 0 else 0
        return finished >= len(jobs)

    return _first(done, first_ms)


def _first(done: Callable[[float], bool], low_ms: float) -> float:
    """The first moment for which a question that is once answered yes for ever is answered so."""
    step = 1_000.0
    while not done(low_ms + step):
        step *= 2
    low, high = low_ms, low_ms + step
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if done(middle) else (middle, high)
    return low
