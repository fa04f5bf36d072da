"""Simulated time and a network that loses, delays, doubles and reorders. Everything follows from one seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

Action = Callable[[], None]


class Clock:
    """Events in order of their time; those of one time in the order they were asked for."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._agenda: list[tuple[int, int, Action]] = []
        self._asked = 0

    def at(self, due_ms: int, action: Action) -> None:
        self._asked += 1
        heapq.heappush(self._agenda, (max(due_ms, self.now_ms), self._asked, action))

    def after(self, wait_ms: int, action: Action) -> None:
        self.at(self.now_ms + wait_ms, action)

    def run_until(self, end_ms: int) -> None:
        while self._agenda and self._agenda[0][0] <= end_ms:
            due_ms, _, action = heapq.heappop(self._agenda)
            self.now_ms = due_ms
            action()
        self.now_ms = end_ms


@dataclass
class Weather:
    """How bad the network is. Healed: a steady 1 ms and nothing lost."""

    loss: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_ms: int = 0
    #: (one end, other end) pairs between which nothing passes, in that direction.
    cut: set[tuple[str, str]] = field(default_factory=set)
    #: Ends whose link takes at least and at most so long, in both directions, and keeps the order.
    slow: dict[str, tuple[int, int]] = field(default_factory=dict)


class Net:
    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock = clock
        self.weather = Weather()
        self._rng = rng
        #: (sender, receiver) -> when the last message of a slow link arrives: what follows does not overtake it.
        self._behind_ms: dict[tuple[str, str], int] = {}

    def carry(self, sender: str, receiver: str, deliver: Action) -> None:
        """Deliver once, twice, late or never, as the weather has it."""
        weather, rng = self.weather, self._rng
        if (sender, receiver) in weather.cut or rng.random() < weather.loss:
            return
        copies = 2 if rng.random() < weather.doubled else 1
        for _ in range(copies):
            wait = rng.randint(1, weather.late_ms) if rng.random() < weather.late else 1
            self.clock.at(self._in_order(sender, receiver, self.clock.now_ms + wait), deliver)

    def _in_order(self, sender: str, receiver: str, due_ms: int) -> int:
        link, slow = (sender, receiver), self.weather.slow
        took = slow.get(sender) or slow.get(receiver)
        if took is not None:
            due_ms += self._rng.randint(*took)
            self._behind_ms[link] = max(due_ms, self._behind_ms.get(link, 0))
        return max(due_ms, self._behind_ms.get(link, 0))
