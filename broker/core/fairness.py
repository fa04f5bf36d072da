"""How much of the fleet each owner has had, for its weight: who has had least goes first. Pure.

Counted in the expected time of a reference card, so that it does not matter whose jobs met the fast ones. An owner who
comes back after a pause begins level with whoever is served now: time not asked for is not saved up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Owners remembered; beyond that those who are level anyway are forgotten.
OWNERS: Final = 10_000


class Fairness:
    def __init__(self, weights: Mapping[str, float]) -> None:
        """weights: 1 for whoever is not named."""
        self._weights = weights
        self._had: dict[str, float] = {}
        #: What the owner had who was served last: whoever comes in later begins here.
        self._level = 0.0

    def share(self, owner: str) -> float:
        return self._had.get(owner, self._level)

    def comes(self, owner: str) -> None:
        """Its first job is in the queue."""
        self._had[owner] = max(self._had.get(owner, 0.0), self._level)
        if len(self._had) > OWNERS:
            self._had = {name: had for name, had in self._had.items() if had > self._level or name == owner}

    def served(self, owner: str, cost_ms: float) -> None:
        """A job of its goes out, which costs this much."""
        had = self.share(owner)
        self._level = max(self._level, had)
        self._had[owner] = had + self.charge(owner, cost_ms)

    def charge(self, owner: str, cost_ms: float) -> float:
        """By how much a job that costs this much adds to an owner's share."""
        return cost_ms / self._weights.get(owner, 1.0)
