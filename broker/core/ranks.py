"""Whose turn it is in one lane: by priority, and among equals whoever has had least since it came there. Pure.

Each priority is a rank. Whoever comes into a rank begins level with whoever has had least of those that stand there: it
has saved nothing up, and does not wait until those are served who were left behind elsewhere. What lifts it there
counts in this rank alone, and what it is served counts in all (fairness.py): nobody is worse off in one lane for having
come into another, and nobody gets a share for each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

from broker.core.fairness import Fairness
from broker.core.order import Order

#: Owners remembered in a rank that have gone from it; of more all are forgotten, and begin level.
GONE: Final = 1_000

Thing = TypeVar("Thing", bound=Hashable)


class _Rank(Generic[Thing]):
    def __init__(self, order: Order[Thing]) -> None:
        #: Those that are shown.
        self.order = order
        #: How many things each owner has that stands here, shown or not.
        self.standing: dict[str, int] = {}
        #: By how much more than they have had their owners count here; of those that have gone, too, as they come back.
        self.lifts: dict[str, float] = {}


class Ranks(Generic[Thing]):
    def __init__(
        self,
        fairness: Fairness,
        *,
        owner: Callable[[Thing], str],
        rank: Callable[[Thing], int],
        after: Callable[[Thing], tuple[Any, ...]],
        wider: Ranks[Thing] | None = None,
    ) -> None:
        """rank: the higher goes first; a thing of which it has changed must be put in again. after: the order of those
        that are level. wider: of the lane whose things the same workers take, too."""
        self._fairness = fairness
        self._owner, self._rank, self._after = owner, rank, after
        self._wider = wider
        self._narrower: list[Ranks[Thing]] = []
        if wider is not None:
            wider._narrower.append(self)
        self._ranks: dict[int, _Rank[Thing]] = {}
        self._rank_of: dict[Thing, int] = {}

    def put(self, thing: Thing) -> None:
        """It stands here, and counts."""
        number = self._rank(thing)
        if self._rank_of.get(thing) != number:
            self.leave(thing)
            self._enter(thing, number)
        self._ranks[number].order.put(thing)

    def remove(self, thing: Thing) -> None:
        """It stands here still, and does not count for now."""
        number = self._rank_of.get(thing)
        if number is not None:
            self._ranks[number].order.remove(thing)

    def leave(self, thing: Thing) -> None:
        """It does not stand here any more."""
        number = self._rank_of.pop(thing, None)
        if number is None:
            return
        rank, owner = self._ranks[number], self._owner(thing)
        rank.order.remove(thing)
        rank.standing[owner] -= 1
        if not rank.standing[owner]:
            del rank.standing[owner]
        if not rank.standing:
            del self._ranks[number]

    def first(self) -> Thing | None:
        for number in sorted(self._ranks, reverse=True) if len(self._ranks) > 1 else self._ranks:
            first = self._ranks[number].order.first()
            if first is not None:
                return first
        return None

    def few(self, most: int) -> list[Thing]:
        """The first ones, in order."""
        found: list[Thing] = []
        for number in sorted(self._ranks, reverse=True):
            found += self._ranks[number].order.few(most - len(found))
        return found

    def urgency(self, thing: Thing) -> tuple[Any, ...]:
        """Smaller goes first: the rank, less than nothing; what its owner has had; what comes after that."""
        number = self._rank(thing)
        return -number, *self._key(number, thing)

    # ---- within

    def _enter(self, thing: Thing, number: int) -> None:
        rank, owner = self._ranks.get(number), self._owner(thing)
        if rank is None:
            rank = self._ranks[number] = _Rank(Order(lambda other: self._key(number, other)))
        if owner not in rank.standing:
            lift = self._level(number) - self._had(number, owner)
            if lift > 0:
                rank.lifts[owner] = rank.lifts.get(owner, 0.0) + lift
            if len(rank.lifts) > len(rank.standing) + GONE:
                rank.lifts = {name: lift for name, lift in rank.lifts.items() if name in rank.standing or name == owner}
        self._rank_of[thing] = number
        rank.standing[owner] = rank.standing.get(owner, 0) + 1

    def _key(self, number: int, thing: Thing) -> tuple[Any, ...]:
        return self._had(number, self._owner(thing)), *self._after(thing)

    def _had(self, number: int, owner: str) -> float:
        rank = self._ranks.get(number)
        return self._fairness.share(owner) + (rank.lifts.get(owner, 0.0) if rank is not None else 0.0)

    def _level(self, number: int) -> float:
        """Where whoever comes begins."""
        least = [self._least(number)]
        if self._wider is not None:  # those go by their turn to the same workers
            least.append(self._wider._least(number))
        elif least == [None]:
            least = [max((one for ranks in self._narrower if (one := ranks._least(number)) is not None), default=None)]
        return min((one for one in least if one is not None), default=self._fairness.furthest)

    def _least(self, number: int) -> float | None:
        """What the one has had who has had least of those that stand there."""
        rank = self._ranks.get(number)
        if rank is None or not rank.standing:
            return None
        first = rank.order.first()
        owners = rank.standing if first is None else (self._owner(first),)
        return min(self._had(number, owner) for owner in owners)
