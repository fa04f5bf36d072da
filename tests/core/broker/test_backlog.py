"""The queue's order, and that it costs what waits in it and not what ever did."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.backlog import Backlog, Entry, GroupKey
from broker.protocol.records import Needs
from tests.core.broker.given import NEEDS

OTHER = dataclasses.replace(NEEDS, nodes=("Other",))


def put(backlog: Backlog, *jobs: tuple[str, int, int], needs: Needs = NEEDS, pin: str = "") -> None:
    for job_id, priority, sequence in jobs:
        backlog.add(job_id, needs, pin, priority, sequence)


def drained(backlog: Backlog) -> list[str]:
    order = []
    while heads := backlog.heads():
        (_, _, job_id), _ = min(heads)
        backlog.discard(job_id)
        order.append(job_id)
    return order


def test_priority_goes_before_age() -> None:
    backlog = Backlog()
    put(backlog, ("old", 0, 1), ("new", 0, 2), ("urgent", 9, 3), ("patient", -9, 0))
    assert drained(backlog) == ["urgent", "old", "new", "patient"]


def test_the_order_holds_across_groups() -> None:
    backlog = Backlog()
    put(backlog, ("1", 0, 1), ("4", 0, 4))
    put(backlog, ("2", 0, 2), needs=OTHER)
    put(backlog, ("3", 0, 3), pin="gpu-0")
    assert len(backlog.heads()) == 3
    assert drained(backlog) == ["1", "2", "3", "4"]


def test_jobs_that_differ_only_in_how_long_they_take_share_a_group() -> None:
    backlog = Backlog()
    for number in range(1_000):
        needs = dataclasses.replace(NEEDS, steps=number, pixels=number << 10, signature=f"s{number}")
        put(backlog, (f"{number}", 0, number), needs=needs)
    assert len(backlog.heads()) == 1


def test_a_job_put_in_again_moves() -> None:
    backlog = Backlog()
    put(backlog, ("a", 0, 1), ("b", 0, 2), ("a", -1, 1))
    assert drained(backlog) == ["b", "a"]
    put(backlog, ("a", 0, 1), ("a", 0, 1))
    assert len(backlog) == 1 and drained(backlog) == ["a"]


def test_a_group_that_is_empty_is_gone() -> None:
    backlog = Backlog()
    put(backlog, ("a", 0, 1))
    ((_, key),) = backlog.heads()
    assert key == GroupKey(NEEDS.nodes, (), (), 0, "")
    backlog.discard("a")
    backlog.discard("a")
    assert backlog.head(key) is None and not backlog.heads() and "a" not in backlog


def test_moving_a_job_for_ever_does_not_grow_the_queue() -> None:
    backlog = Backlog()
    put(backlog, ("head", 100, 0))
    for number in range(10_000):
        put(backlog, ("restless", number % 7, 1), ("shortlived", -number % 9, 2))
        backlog.discard("shortlived")
    (group,) = backlog._groups.values()
    assert len(group.heap) < 200
    assert drained(backlog) == ["head", "restless"]


class Queue(RuleBasedStateMachine):
    """Against a list that is sorted anew each time."""

    jobs = st.integers(0, 5).map(str)

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.model: dict[str, tuple[Entry, str]] = {}

    @rule(job=jobs, needs=st.sampled_from([NEEDS, OTHER]), priority=st.integers(-1, 1), times=st.sampled_from([1, 90]))
    def put(self, job: str, needs: Needs, priority: int, times: int) -> None:
        for _ in range(times):
            self.backlog.discard(job)
            self.backlog.add(job, needs, "", priority, int(job))
        self.model[job] = ((-priority, int(job), job), needs.nodes[0])

    @rule(job=jobs)
    def take_out(self, job: str) -> None:
        self.backlog.discard(job)
        self.model.pop(job, None)

    @invariant()
    def the_heads_are_the_first_of_their_groups(self) -> None:
        found = {key.nodes[0]: entry for entry, key in self.backlog.heads()}
        first: dict[str, Entry] = {}
        for entry, node in sorted(self.model.values()):
            first.setdefault(node, entry)
        assert found == first
        assert len(self.backlog) == len(self.model)
        assert all(len(group.heap) <= 2 * group.waiting + 66 for group in self.backlog._groups.values())


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
