"""Where each worker stands that may be given work: idle, busy with room left, or full; and who holds which models.

Kept up to date worker by worker (`look`), so that a decision looks at a few workers of each kind and never at all of
them: the first ones, and some that hold the models. Knows no job but those that workers hold.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from broker.core.backlog import Backlog, GroupKey, Kind, Lane, Models
from broker.core.estimates import Estimates, left_ms
from broker.core.jobs import Job
from broker.core.order import Order
from broker.core.roster import Roster, Worker
from broker.core.rules import Now
from broker.protocol.records import Phase

#: Workers of one kind and tier that a decision looks at, kinds of one tier, and of these workers that hold the models.
FEW: Final = 2
KINDS: Final = 16
HOLDERS: Final = 8
#: A fleet of so many is looked at whole.
SMALL: Final = 8
#: Attempts in these phases are out of ComfyUI.
DELIVERED: Final = (Phase.FINISHING, Phase.ENDED)


class Tier(enum.Enum):
    IDLE = "idle"  # holds nothing: the fastest card first, those that others use last
    ROOM = "room"  # busy, and something can be staged behind: who is free earliest first
    FULL = "full"


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Stand:
    """A worker as it stood when it was last looked at."""

    name: str
    worker: Worker
    kind: Kind
    tier: Tier
    #: It gives no room though nothing keeps its card busy: its ComfyUI is down, or its deliveries have piled up. Until
    #: when, nobody knows.
    shut: bool
    #: When it comes to what it is sent now, on the core's clock, and whether to prompts of others before that.
    free_ms: int
    busy_for_others: bool
    #: What it will hold when it comes to its next job.
    models: Models
    #: Of which sets of models, as jobs name them, it will hold all; the newest first.
    sets: tuple[Models, ...]
    #: What jobs may need without a load there: nothing, one of its models, one of these sets.
    warm: tuple[Models, ...]
    #: Whether an attempt waits there behind another, or behind prompts of others; the one that was sent last, and when
    #: that will be done.
    staged: bool
    last: Job | None
    done_ms: int
    #: When it was last asked whether somebody else should have that.
    looked_ms: int
    idle_since_ms: int
    speed: float
    #: By how much somebody else's work on the card seems to slow it; 1 = not at all.
    slowdown: float
    #: That speed in quarters of a doubling: cards that differ by less are alike.
    pace: int


class _Shelf:
    """The workers of one tier."""

    def __init__(self) -> None:
        self.ranked: dict[Kind, Order[Stand]] = {}
        #: By what jobs may need without a load there.
        self.warm: dict[Models, dict[Kind, dict[str, Stand]]] = {}

    def put(self, stand: Stand) -> None:
        self.ranked.setdefault(stand.kind, Order[Stand](_rank)).put(stand)
        for models in stand.warm:
            self.warm.setdefault(models, {}).setdefault(stand.kind, {})[stand.name] = stand

    def remove(self, stand: Stand) -> None:
        ranked = self.ranked[stand.kind]
        ranked.remove(stand)
        if not len(ranked):
            del self.ranked[stand.kind]
        for models in stand.warm:
            kinds = self.warm[models]
            del kinds[stand.kind][stand.name]
            if not kinds[stand.kind]:
                del kinds[stand.kind]
            if not kinds:
                del self.warm[models]


class Rooms:
    def __init__(self, roster: Roster, estimates: Estimates, *, loads_ahead: bool) -> None:
        """loads_ahead: whether what has to load models may be sent to a worker that is still busy."""
        self._roster = roster
        self._estimates = estimates
        self._loads_ahead = loads_ahead
        self._stands: dict[str, Stand] = {}
        self._shelves = {tier: _Shelf() for tier in Tier}
        #: Workers that hold an attempt which something else runs before.
        self.staged: dict[str, Stand] = {}

    def look(self, name: str, now: Now) -> None:
        """Take note of how a worker stands now, or that it is gone."""
        before = self._stands.pop(name, None)
        if before is not None:
            if not before.shut:
                self._shelves[before.tier].remove(before)
            self.staged.pop(name, None)
        worker = self._roster.by_name.get(name)
        if worker is None or not self._roster.may_work(worker):
            return
        stand = self._stands[name] = self._seen(worker, before, now)
        if not stand.shut:  # else jobs would wait for it
            self._shelves[stand.tier].put(stand)
        if stand.staged:
            self.staged[name] = stand

    def lanes(self, backlog: Backlog) -> Iterator[Lane]:
        """Every lane in which some worker has room for what waits there."""
        idle, busy = self._shelves[Tier.IDLE], self._shelves[Tier.ROOM]
        open_kinds = dict.fromkeys((*idle.ranked, *busy.ranked) if self._loads_ahead else idle.ranked)
        yield from map(Lane, open_kinds)
        # Whichever are fewer: jobs may be pinned to any number of workers that are not here.
        stands, pins = self._stands, backlog.pinned
        for name in pins if len(pins) <= len(stands) else filter(pins.__contains__, stands):
            stand = self._stands.get(name)
            if stand is not None and stand.tier is not Tier.FULL:
                yield Lane(stand.kind, name)
        if not self._loads_ahead:
            for models in backlog.waiting_for.keys() & busy.warm.keys():
                yield from (Lane(kind, models=models) for kind in busy.warm[models] if kind not in open_kinds)

    def able(self, group: GroupKey, tiers: Iterable[Tier] = tuple(Tier)) -> list[Stand]:
        """Workers that can run these jobs: the first of each of these tiers, and some of any that hold the models, or
        the largest of them."""
        serves = self._roster.serves
        if group.pin:
            pinned = self._stands.get(group.pin)
            return [pinned] if pinned is not None and serves(pinned.kind, group) else []
        if len(self._stands) <= SMALL:
            return [stand for stand in self._stands.values() if not stand.shut and serves(stand.kind, group)]
        found: dict[str, Stand] = {}
        # Counted tier by tier, so that a kind with room is seen however many before it have none.
        for tier in tiers:
            orders = (order for kind, order in self._shelves[tier].ranked.items() if serves(kind, group))
            for order in islice(orders, KINDS):
                found.update((stand.name, stand) for stand in order.few(FEW))
        for models in dict.fromkeys((group.models, self._heaviest(group.models))) if group.models else ():
            for shelf in self._shelves.values():
                warm = shelf.warm.get(models, {})
                each = max(1, HOLDERS // max(1, len(warm)))
                able = (islice(few.items(), each) for kind, few in warm.items() if serves(kind, group))
                for few in islice(able, HOLDERS):
                    found.update(few)
        return list(found.values())

    def holders(self, models: Models) -> int:
        """How many workers will hold the largest of these models when they come to their next job."""
        heaviest = self._heaviest(models)
        return sum(len(few) for shelf in self._shelves.values() for few in shelf.warm.get(heaviest, {}).values())

    def looked_at(self, stand: Stand, now: Now) -> None:
        """Its staged attempt is not asked about again before the others were."""
        stand.looked_ms = now.mono_ms
        self.staged[stand.name] = self.staged.pop(stand.name)

    def stands(self) -> Iterable[Stand]:
        """Every worker that may be given work."""
        return self._stands.values()

    def stand(self, name: str) -> Stand | None:
        return self._stands.get(name)

    # ---- within

    def _seen(self, worker: Worker, before: Stand | None, now: Now) -> Stand:
        held = list(worker.jobs.values())
        room = worker.room() > 0
        tier = Tier.FULL if not room else Tier.ROOM if held else Tier.IDLE
        models = worker.will_hold(self._estimates.size_bytes)
        used = (*(job.record.needs.models for job in reversed(held)), *worker.sets)
        sets = tuple(dict.fromkeys(one for one in used if set(one) <= set(models)))
        speed = self._estimates.speed(worker.name)
        idle_since_ms = before.idle_since_ms if before is not None and before.tier is Tier.IDLE else now.mono_ms
        behind = worker.goes_behind(held[-1]) if held and waits(held[-1]) else 0
        usual_ms = self._estimates.usual_run_ms(worker.name)
        done_ms = now.mono_ms + self._held_ms(worker, held, now)
        return Stand(
            name=worker.name,
            worker=worker,
            kind=worker.kind,
            tier=tier,
            shut=is_shut(worker),
            free_ms=done_ms + worker.others.wait_ms(worker.others.prompts, usual_ms, now),
            busy_for_others=worker.others.prompts > 0,
            models=models,
            sets=sets,
            warm=tuple(dict.fromkeys(((), *sets, *((model,) for model in models)))),
            staged=(len(held) > 1 or behind > 0) and waits(held[-1]),
            last=held[-1] if held else None,
            done_ms=done_ms + worker.others.wait_ms(behind, usual_ms, now),
            looked_ms=before.looked_ms if before is not None else 0,
            idle_since_ms=idle_since_ms,
            speed=speed,
            slowdown=worker.others.slowdown(now),
            pace=round(4 * math.log2(speed)),
        )

    def _held_ms(self, worker: Worker, held: list[Job], now: Now) -> int:
        """How long what it holds will still take."""
        held_ms = 0
        for job in held:
            if job.phase in DELIVERED:
                continue
            expected_ms = job.record.expect_ms
            if expected_ms is None:
                expected_ms = self._estimates.run_ms(job.record.needs, worker.name)
            if job.began_ms is not None:
                expected_ms = left_ms(expected_ms, now.mono_ms - job.began_ms)
            held_ms += expected_ms
        return held_ms

    def _heaviest(self, models: Models) -> Models:
        return models if len(models) == 1 else (max(models, key=self._estimates.size_bytes),)


def waits(job: Job) -> bool:
    """Whether an attempt that a worker holds has not begun."""
    return job.began_ms is None and job.phase in (None, Phase.STAGING, Phase.STAGED)


def is_shut(worker: Worker) -> bool:
    """Whether it gives no room though nothing keeps its card busy. One that has not told yet how much it has is about
    to; the queue of a ComfyUI that does not answer is none any more."""
    if worker.ready is None or worker.room() > 0 or (worker.others.prompts and not worker.lacks_comfyui):
        return False
    return all(job.phase in DELIVERED for job in worker.jobs.values())


def _rank(stand: Stand) -> tuple[int, int, int, str]:
    if stand.tier is Tier.IDLE:
        return stand.busy_for_others, -stand.pace, stand.idle_since_ms, stand.name
    return stand.free_ms, -stand.pace, 0, stand.name
