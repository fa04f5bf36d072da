"""Things in the order of keys that change: a heap that is told when a key shrinks and finds out when one has grown.

Each thing counts once, by the key it was put in with last; whatever else lies in the heap is dropped when it comes up.
`Ranks` are such orders one above another, where what is first of each is asked for, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)


class Order(Generic[Thing]):
    def __init__(self, key: Callable[[Thing], Any]) -> None:
        """key: of a thing as it is now. One that has shrunk must be put in again; one that has grown need not be."""
        self._key = key
        self._counts: dict[Thing, int] = {}
        #: (key, a number that no other entry has, thing)
        self._heap: list[tuple[Any, int, Thing]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, thing: Thing) -> bool:
        return thing in self._counts

    def put(self, thing: Thing) -> None:
        self._pushed += 1
        self._counts[thing] = self._pushed
        heapq.heappush(self._heap, (self._key(thing), self._pushed, thing))
        if len(self._heap) > 2 * len(self._counts) + 64:
            self._heap = [entry for entry in self._heap if self._counts.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def remove(self, thing: Thing) -> None:
        self._counts.pop(thing, None)

    def first(self) -> Thing | None:
        heap = self._heap
        while heap:
            key, number, thing = heap[0]
            if self._counts.get(thing) != number:
                heapq.heappop(heap)
                continue
            now = self._key(thing)
            if now == key:
                return thing
            heapq.heapreplace(heap, (now, number, thing))
        return None

    def few(self, most: int) -> list[Thing]:
        """The first ones, in order."""
        found: list[tuple[Any, int, Thing]] = []
        while len(found) < most and self.first() is not None:
            found.append(heapq.heappop(self._heap))
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [thing for _, _, thing in found]


class Ranks(Generic[Thing]):
    def __init__(self, rank: Callable[[Thing], int], key: Callable[[Thing], Any]) -> None:
        """rank: the higher goes first. A thing of which it has changed must be put in again. key: within a rank."""
        self._rank = rank
        self._key = key
        self._orders: dict[int, Order[Thing]] = {}
        self._rank_of: dict[Thing, int] = {}

    def put(self, thing: Thing) -> None:
        rank = self._rank(thing)
        if self._rank_of.get(thing, rank) != rank:
            self.remove(thing)
        self._rank_of[thing] = rank
        order = self._orders.get(rank)
        if order is None:
            order = self._orders[rank] = Order(self._key)
        order.put(thing)

    def remove(self, thing: Thing) -> None:
        rank = self._rank_of.pop(thing, None)
        if rank is None:
            return
        order = self._orders[rank]
        order.remove(thing)
        if not len(order):
            del self._orders[rank]

    def first(self) -> Thing | None:
        return self._orders[max(self._orders)].first() if self._orders else None

    def few(self, most: int) -> list[Thing]:
        """The first ones, in order."""
        found: list[Thing] = []
        for rank in sorted(self._orders, reverse=True):
            found += self._orders[rank].few(most - len(found))
        return found

    def heads(self) -> dict[int, Thing]:
        """What is first of each rank."""
        firsts = ((rank, order.first()) for rank, order in self._orders.items())
        return {rank: first for rank, first in firsts if first is not None}
