"""The queued jobs, grouped by who can run them and whose they are, so that a decision never scans the queue.

Within a group the order is a job's turn: its place of submission, less PLACES for each point of priority, so that what
is more urgent goes first and what waits grows more urgent. Between groups: priority, then the owner who has had least
of the fleet, then the nearest deadline, then the turn. A lane is the queue as one kind of worker sees it, or one worker
to which jobs are pinned.

Removal is lazy: an entry counts only while it is its job's own, and a group with more dead entries than live ones is
built anew.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from broker.core.fairness import Fairness
from broker.core.model import JobRecord
from broker.core.order import Order
from broker.core.ranks import Ranks
from broker.protocol.records import Needs

#: Jobs submitted later that a point of priority goes before, at most.
PLACES: Final = 1_000

#: Groups that need the same models, of which one is looked for that a kind of worker can run.
ALIKE: Final = 16

#: What decides what a worker can run: the digest of its capabilities, None before its ComfyUI has answered; its labels;
#: its card's memory in bytes.
Kind = tuple[str | None, tuple[str, ...], int]
#: All models that a job needs.
Models = tuple[str, ...]


class GroupKey(NamedTuple):
    """Who can run a job, whose it is, and how much work it is, so that no short one has to wait behind a long one that
    waits for a fast worker. A tuple, as it is hashed often."""

    nodes: tuple[str, ...]
    models: Models
    labels: tuple[str, ...]
    vram_bytes: int
    #: The only worker that may run it; empty = any.
    pin: str
    owner: str
    #: In doublings; 0 where it does not matter.
    work: int
    #: How near its deadline is (expiry.py); 0 = it has none, or time.
    near: int = 0


def group_key(needs: Needs, pin: str = "", owner: str = "", work: int = 0, near: int = 0) -> GroupKey:
    return GroupKey(needs.nodes, needs.models, needs.labels, needs.vram_bytes, pin, owner, work, near)


class Lane(NamedTuple):
    """Workers that are alike, or the one that jobs are pinned to."""

    kind: Kind
    pin: str = ""
    #: Of what they can run only jobs that need exactly these; None = all.
    models: Models | None = None


#: Smaller is sooner: (turn, sequence, job_id, its group).
Entry = tuple[int, int, str, "Group"]

#: The queue as nobody in particular sees it: all that waits.
EVERYBODY: Final = Lane(("", (), 0), "*")


class Wait(NamedTuple):
    since_ms: int
    #: The worker that would be better, and the one with room.
    worker: str
    instead: str


@dataclasses.dataclass(slots=True, eq=False)
class Group:
    key: GroupKey
    heap: list[Entry] = dataclasses.field(default_factory=list)
    #: Entries of the heap that count; never 0 while the group is known.
    waiting: int = 0
    #: The lanes it stands in, and the order of those that need the same models.
    lanes: list[_Line | Ranks[Group]] = dataclasses.field(default_factory=list)
    #: How its first job waits for a worker that would be better, though another has room; None when it does not.
    wait: Wait | None = None
    #: Since when others are let go before its first job because a worker holds their models; None when none were.
    overtaken_ms: int | None = None


class _Line:
    """The groups of one lane in two orders."""

    def __init__(self, fair: Ranks[Group], aged: Callable[[Group], int]) -> None:
        self.fair = fair
        self.aged = Order[Group](aged)

    def put(self, group: Group) -> None:
        self.fair.put(group)
        self.aged.put(group)

    def remove(self, group: Group) -> None:
        self.fair.remove(group)
        self.aged.remove(group)

    def leave(self, group: Group) -> None:
        self.fair.leave(group)
        self.aged.remove(group)


class Backlog:
    def __init__(
        self,
        serves: Callable[[Kind, GroupKey], bool],
        fairness: Fairness,
        size: Callable[[Needs], float],
    ) -> None:
        """serves: whether workers of a kind can run a group; it is asked once, until `forget`. size: how much work a
        job is, 1 or more."""
        self._serves = serves
        self._fairness = fairness
        self._size = size
        self._groups: dict[GroupKey, Group] = {}
        self._entry: dict[str, Entry] = {}
        self._lines: dict[Lane, _Line] = {}
        #: Groups by the models they need, and by their owner; and how many are pinned to a worker.
        self._by_models: dict[Models, Ranks[Group]] = {}
        self._by_owner: dict[str, dict[Group, None]] = {}
        self.pinned: dict[str, int] = {}
        #: Jobs by the models they need, and how much work they are together: each two to the power of its group's.
        self.waiting_for: dict[Models, int] = {}
        self.work_for: dict[Models, int] = {}
        #: How much work all jobs are.
        self.work = 0
        #: Owners whose jobs have to wait, and groups passed over until `show`.
        self._held_back: set[str] = set()
        self._aside: dict[Group, None] = {}

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entry

    # ---- jobs

    def add(
        self, job_id: str, needs: Needs, *, owner: str, pin: str, priority: int, sequence: int, near: int = 0
    ) -> None:
        """Put a job in, or move it when it is in already."""
        before = self._entry.pop(job_id, None)
        group = self._group(needs, pin, owner, near)
        entry = (_turn(priority, sequence), sequence, job_id, group)
        self._entry[job_id] = entry
        self._count(group, 1)
        if before is not None and before[3].waiting == 1:  # it stands there with nothing, until it is dissolved
            self._hide(before[3])
        heapq.heappush(group.heap, entry)
        if self.first_of(group) is entry:
            self._show(group)
        if before is not None:  # only now, so that its owner's place is kept
            self._drop(before)

    def fill(self, jobs: Iterable[tuple[JobRecord, int]]) -> None:
        """Put in all that wait at a start, each with how near its deadline is: a group's jobs are put in order, and the
        group among others, once for all of them. The records must stay as they are meanwhile."""
        # By which object the needs are: which ones they are equal to takes long to find.
        groups: dict[tuple[Any, ...], Group] = {}
        for job, near in jobs:
            key = near, id(job.needs), job.least_vram_bytes, job.pin, job.owner
            group = groups.get(key)
            if group is None:
                group = groups[key] = self._group(job.needed, job.pin, job.owner, near)
            entry = (_turn(job.priority, job.sequence), job.sequence, job.job_id, group)
            self._entry[job.job_id] = entry
            group.heap.append(entry)
        for group in dict.fromkeys(groups.values()):
            self._count(group, len(group.heap))
            heapq.heapify(group.heap)
            self._show(group)

    def discard(self, job_id: str) -> None:
        before = self._entry.pop(job_id, None)
        if before is not None:
            self._drop(before)

    def _drop(self, entry: Entry) -> None:
        group = entry[3]
        models = group.key.models
        self._count(group, -1)
        if not self.waiting_for[models]:
            del self.waiting_for[models], self.work_for[models], self._by_models[models]
        if not group.waiting:
            self._dissolve(group)
            return
        if len(group.heap) > 2 * group.waiting + 64:
            group.heap = [other for other in group.heap if self._counts(other)]
            heapq.heapify(group.heap)
        if self.priority(group) != priority_of(entry):
            self._show(group)  # it may go earlier than it did, or has to go later

    # ---- who is next

    def next_in(self, lane: Lane, *, by_age: bool = False) -> Group | None:
        """The group whose first job goes next in this lane. by_age: by turn alone, whatever its priority and whoever's
        it is."""
        if lane.models is None:
            line = self._line(lane)
            return (line.aged if by_age else line.fair).first()
        return next((group for group in self.with_models(lane.models) if self._stands_in(lane, group.key)), None)

    def first_of(self, group: Group) -> Entry:
        while not self._counts(group.heap[0]):
            heapq.heappop(group.heap)
        return group.heap[0]

    def urgency(self, group: Group, kind: Kind) -> tuple[Any, ...]:
        """For workers of that kind; smaller goes first: priority, what its owner has had, nearness, turn."""
        return self._line(Lane(kind, group.key.pin)).fair.urgency(group)

    def priority(self, group: Group) -> int:
        return priority_of(self.first_of(group))

    def turn(self, group: Group) -> int:
        return self.first_of(group)[0]

    def with_models(self, models: Models) -> Iterator[Group]:
        """A few of the groups that need exactly these models, whoever goes next first."""
        order = self._by_models.get(models)
        first = order.first() if order is not None else None
        if order is not None and first is not None:
            yield first
            yield from order.few(ALIKE)[1:]

    def waiting_of(self, owner: str) -> dict[Models, int]:
        """An owner's jobs, by the models they need."""
        found: dict[Models, int] = {}
        for group in self._by_owner.get(owner, ()):
            found[group.key.models] = found.get(group.key.models, 0) + group.waiting
        return found

    def everybody(self, most: int) -> list[tuple[Group, tuple[Any, ...]]]:
        """The groups whose first jobs would go out next if any worker could run any of them, and their urgency."""
        ranks = self._line(EVERYBODY).fair
        return [(group, ranks.urgency(group)) for group in ranks.few(most)]

    def upcoming(self, group: Group, most: int) -> list[Entry]:
        """Its first jobs, in order."""
        found: list[Entry] = []
        while group.heap and len(found) < most:
            entry = heapq.heappop(group.heap)
            if self._counts(entry):
                found.append(entry)
        for entry in found:
            heapq.heappush(group.heap, entry)
        return found

    # ---- what does not count for now

    def is_shown(self, group: Group) -> bool:
        """Whether its jobs count now."""
        return group not in self._aside and group.key.owner not in self._held_back

    def set_aside(self, group: Group) -> None:
        """Look at the others first, until `restore`."""
        self._aside[group] = None
        self._hide(group)

    def restore(self) -> None:
        """Those that were set aside count again."""
        aside, self._aside = self._aside, {}
        for group in aside:
            if group.waiting:
                self._show(group)

    def hold_back(self, owner: str) -> None:
        """Its jobs wait, until `let_go`."""
        if owner not in self._held_back:
            self._held_back.add(owner)
            for group in self._by_owner.get(owner, ()):
                self._hide(group)

    def let_go(self, owner: str) -> None:
        if owner in self._held_back:
            self._held_back.discard(owner)
            for group in self._by_owner.get(owner, ()):
                self._show(group)

    def forget(self, lane: Callable[[Lane], bool]) -> None:
        """What these lanes can run has changed: ask anew when they are next looked at. A kind's lane goes with those of
        its pins, which are ordered by it."""
        gone = {self._lines.pop(known) for known in [known for known in self._lines if lane(known)]}
        if gone:
            for group in self._groups.values():
                group.lanes = [line for line in group.lanes if line not in gone]

    # ---- within

    def _group(self, needs: Needs, pin: str, owner: str, near: int) -> Group:
        key = group_key(needs, pin, owner, int(self._size(needs)).bit_length(), near)
        group = self._groups.get(key)
        return group if group is not None else self._found(key)

    def _count(self, group: Group, more: int) -> None:
        """So many more jobs wait in it."""
        models, work = group.key.models, more << group.key.work
        group.waiting += more
        self.waiting_for[models] = self.waiting_for.get(models, 0) + more
        self.work_for[models] = self.work_for.get(models, 0) + work
        self.work += work

    def _found(self, key: GroupKey) -> Group:
        group = self._groups[key] = Group(key)
        if key.models not in self._by_models:
            self._by_models[key.models] = self._in_ranks()
        group.lanes = [self._by_models[key.models]]
        group.lanes += [line for lane, line in self._lines.items() if self._stands_in(lane, key)]
        self._by_owner.setdefault(key.owner, {})[group] = None
        self._fairness.forget(self._by_owner)
        if key.pin:
            self.pinned[key.pin] = self.pinned.get(key.pin, 0) + 1
        return group

    def _dissolve(self, group: Group) -> None:
        key = group.key
        del self._groups[key]
        for line in group.lanes:
            line.leave(group)
        # Else the group and what knows it would keep each other: an order of which it was the last, dead entries.
        group.lanes, group.heap = [], []
        del self._by_owner[key.owner][group]
        if not self._by_owner[key.owner]:
            del self._by_owner[key.owner]
        if key.pin:
            self.pinned[key.pin] -= 1
            if not self.pinned[key.pin]:
                del self.pinned[key.pin]

    def _line(self, lane: Lane) -> _Line:
        line = self._lines.get(lane)
        if line is not None:
            return line
        wider = self._line(Lane(lane.kind)).fair if lane.pin and lane is not EVERYBODY else None
        line = self._lines[lane] = _Line(self._in_ranks(wider), self.turn)
        for group in self._groups.values():
            if self._stands_in(lane, group.key):
                group.lanes.append(line)
                if self.is_shown(group):
                    line.put(group)
        return line

    def _in_ranks(self, wider: Ranks[Group] | None = None) -> Ranks[Group]:
        return Ranks(
            self._fairness,
            owner=lambda group: group.key.owner,
            rank=self.priority,
            after=lambda group: (-group.key.near, self.turn(group)),
            wider=wider,
        )

    def _stands_in(self, lane: Lane, key: GroupKey) -> bool:
        return lane is EVERYBODY or (lane.pin == key.pin and self._serves(lane.kind, key))

    def _show(self, group: Group) -> None:
        if self.is_shown(group):
            for line in group.lanes:
                line.put(group)

    def _hide(self, group: Group) -> None:
        for line in group.lanes:
            line.remove(group)

    def _counts(self, entry: Entry) -> bool:
        return self._entry.get(entry[2]) is entry


def _turn(priority: int, sequence: int) -> int:
    return sequence - priority * PLACES if priority else sequence  # the same number, kept once


def priority_of(entry: Entry) -> int:
    turn, sequence, _, _ = entry
    return (sequence - turn) // PLACES
