"""How much of the fleet each owner has had, for its weight: who has had least goes first. Pure.

Counted in the expected time of a reference card, so that it does not matter whose jobs met the fast ones. Where one
begins who comes late is a matter of each lane (ranks.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from typing import Final

#: Owners remembered who wait for nothing; of more the half is forgotten that has had least.
OWNERS: Final = 10_000


class Fairness:
    def __init__(self, weights: Mapping[str, float]) -> None:
        """weights: 1 for whoever is not named."""
        self._weights = weights
        self._had: dict[str, float] = {}
        #: The most that an owner had who was served: whoever comes while nobody waits begins here.
        self.furthest = 0.0

    def share(self, owner: str) -> float:
        return self._had.get(owner, 0.0)

    def forget(self, waiting: Collection[str]) -> None:
        """Owners beyond OWNERS, of those that wait for nothing. waiting: all that have jobs in the queue."""
        if len(self._had) > OWNERS + len(waiting):
            idle = [name for name in self._had if name not in waiting]
            for name in heapq.nsmallest(len(idle) - OWNERS // 2, idle, key=self._had.__getitem__):
                del self._had[name]

    def served(self, owner: str, cost_ms: float) -> None:
        """A job of its goes out, which costs this much."""
        had = self.share(owner)
        self.furthest = max(self.furthest, had)
        self._had[owner] = had + self.charge(owner, cost_ms)

    def charge(self, owner: str, cost_ms: float) -> float:
        """By how much a job that costs this much adds to an owner's share."""
        return cost_ms / self._weights.get(owner, 1.0)
