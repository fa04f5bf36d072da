"""Where each worker stands that may be given work: idle, busy with room left, or full; and who holds which models.

Kept up to date worker by worker (`look`), so that a decision looks at a few workers of each kind and never at all of
them. Knows no job but those that workers hold.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from broker.core.backlog import GroupKey, Kind, Lane
from broker.core.estimates import Estimates
from broker.core.jobs import Job
from broker.core.order import Order
from broker.core.roster import Roster, Worker
from broker.core.rules import Now
from broker.protocol.records import Phase

Key = TypeVar("Key")
#: Workers of one kind and tier that a decision looks at, kinds of one tier, and workers that hold the job's models.
FEW: Final = 2
KINDS: Final = 16
HOLDERS: Final = 8


class Tier(enum.Enum):
    IDLE = "idle"  # holds nothing: the fastest card first
    ROOM = "room"  # busy, and something can be staged behind: who is free earliest first
    FULL = "full"


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Stand:
    """A worker as it stood when it was last looked at."""

    name: str
    worker: Worker
    kind: Kind
    tier: Tier
    #: When it will have done what it holds, on the core's clock.
    free_ms: int
    #: What it will hold when it comes to its next job.
    models: tuple[str, ...]
    #: Of which sets of models, as jobs name them, it will hold all; the newest first.
    sets: tuple[tuple[str, ...], ...]
    #: Whether an attempt waits there behind another; and the one that was sent last.
    staged: bool
    last: Job | None
    #: When it was last asked whether somebody else should have that.
    looked_ms: int
    idle_since_ms: int
    speed: float
    #: By how much somebody else's work on the card seems to slow it; 1 = not at all.
    slowdown: float
    #: That speed in quarters of a doubling: cards that differ by less are alike.
    pace: int


class Rooms:
    def __init__(self, roster: Roster, estimates: Estimates) -> None:
        self._roster = roster
        self._estimates = estimates
        self._stands: dict[str, Stand] = {}
        self._tiers: dict[tuple[Kind, Tier], Order[Stand]] = {}
        self._kinds: dict[Kind, int] = {}
        #: Workers by the models they will hold when they come to their next job.
        self._holders: dict[str, dict[str, Stand]] = {}
        #: Workers with room, by kind; and those that hold an attempt which another one runs before.
        self._open: dict[Kind, dict[str, Stand]] = {}
        self.staged: dict[str, Stand] = {}

    def look(self, name: str, now: Now) -> None:
        """Take note of how a worker stands now, or that it is gone."""
        before = self._forget(name)
        worker = self._roster.by_name.get(name)
        if worker is None or not self._roster.may_work(worker):
            return
        stand = self._seen(worker, before, now)
        self._stands[name] = stand
        self._kinds[stand.kind] = self._kinds.get(stand.kind, 0) + 1
        self._tiers.setdefault((stand.kind, stand.tier), Order[Stand](_rank)).put(stand)
        for model in stand.models:
            self._holders.setdefault(model, {})[name] = stand
        if stand.tier is not Tier.FULL:
            self._open.setdefault(stand.kind, {})[name] = stand
        if stand.staged:
            self.staged[name] = stand

    def lanes(self, is_pinned_to: Callable[[str], bool]) -> Iterator[Lane]:
        """Every lane in which some worker has room. is_pinned_to: whether jobs wait for this worker alone."""
        for kind, stands in self._open.items():
            yield Lane(kind)
            yield from (Lane(kind, name) for name in stands if is_pinned_to(name))

    def able(self, group: GroupKey, tiers: Iterable[Tier] = tuple(Tier)) -> list[Stand]:
        """Workers that can run these jobs: a few of each of these tiers, and a few of any that hold the models."""
        serves = self._roster.serves
        if group.pin:
            pinned = self._stands.get(group.pin)
            return [pinned] if pinned is not None and serves(pinned.kind, group) else []
        found: dict[str, Stand] = {}
        for tier in tiers:
            # Counted tier by tier, so that a kind with room is seen however many before it have none.
            orders = (order for kind in self._kinds if (order := self._tiers.get((kind, tier))) and serves(kind, group))
            for order in islice(orders, KINDS):
                found.update((stand.name, stand) for stand in order.few(FEW))
        if group.models:
            heaviest = max(group.models, key=self._estimates.size_bytes)
            holders = (stand for stand in self._holders.get(heaviest, {}).values() if serves(stand.kind, group))
            found.update((stand.name, stand) for stand in islice(holders, HOLDERS))
        return list(found.values())

    def holders(self, models: tuple[str, ...]) -> int:
        """How many workers will hold the largest of these models when they come to their next job."""
        return len(self._holders.get(max(models, key=self._estimates.size_bytes), ())) if models else 0

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
        sets = (*(job.record.needs.models for job in reversed(held)), *worker.sets)
        speed = self._estimates.speed(worker.name)
        idle_since_ms = before.idle_since_ms if before is not None and before.tier is Tier.IDLE else now.mono_ms
        return Stand(
            name=worker.name,
            worker=worker,
            kind=worker.kind,
            tier=tier,
            free_ms=self._free_ms(worker, held, now),
            models=models,
            sets=tuple(dict.fromkeys(used for used in sets if set(used) <= set(models))),
            staged=len(held) > 1 and waits(held[-1]),
            last=held[-1] if held else None,
            looked_ms=before.looked_ms if before is not None else 0,
            idle_since_ms=idle_since_ms,
            speed=speed,
            slowdown=worker.slowdown(now),
            pace=round(4 * math.log2(speed)),
        )

    def _free_ms(self, worker: Worker, held: list[Job], now: Now) -> int:
        """When it will have done what it holds."""
        free_ms = now.mono_ms
        for job in held:
            if job.phase in (Phase.FINISHING, Phase.ENDED):
                continue  # out of ComfyUI
            expected_ms = job.record.expect_ms
            if expected_ms is None:
                expected_ms = self._estimates.run_ms(job.record.needs, worker.name)
            if job.began_ms is not None:
                gone_ms = now.mono_ms - job.began_ms
                # What takes longer than expected takes longer still, the longer it has.
                expected_ms = max(expected_ms - gone_ms, (gone_ms - expected_ms) // 2, 0)
            free_ms += expected_ms
        return free_ms

    def _forget(self, name: str) -> Stand | None:
        stand = self._stands.pop(name, None)
        if stand is None:
            return None
        self._tiers[stand.kind, stand.tier].remove(stand)
        self._kinds[stand.kind] -= 1
        if not self._kinds[stand.kind]:
            del self._kinds[stand.kind]
            for tier in Tier:
                self._tiers.pop((stand.kind, tier), None)
        for model in stand.models:
            _unlist(self._holders, model, name)
        if stand.tier is not Tier.FULL:
            _unlist(self._open, stand.kind, name)
        self.staged.pop(name, None)
        return stand


def waits(job: Job) -> bool:
    """Whether an attempt that a worker holds has not begun."""
    return job.began_ms is None and job.phase in (None, Phase.STAGING, Phase.STAGED)


def _rank(stand: Stand) -> tuple[int, int, str]:
    if stand.tier is Tier.IDLE:
        return -stand.pace, stand.idle_since_ms, stand.name
    return stand.free_ms, -stand.pace, stand.name


def _unlist(index: dict[Key, dict[str, Stand]], key: Key, name: str) -> None:
    index[key].pop(name, None)
    if not index[key]:
        del index[key]
