"""The queue's order, and that it costs what waits in it and not what ever did."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.backlog import PLACES, Backlog, Group, GroupKey, Lane, group_key
from broker.core.estimates import work
from broker.core.fairness import Fairness
from broker.protocol.records import Needs
from tests.core.broker.given import ANYWHERE, DIGEST, NEEDS, drained, record

OTHER = dataclasses.replace(NEEDS, nodes=("Other",))


def backlog_of(shares: dict[str, float] | None = None) -> Backlog:
    fairness = Fairness({})
    fairness._had = shares if shares is not None else {}
    return Backlog(lambda kind, group: kind[2] >= group.vram_bytes, fairness, work)


def put(backlog: Backlog, *jobs: tuple[str, int, int], needs: Needs = NEEDS, pin: str = "", owner: str = "ann") -> None:
    for job_id, priority, sequence in jobs:
        backlog.add(job_id, needs, owner=owner, pin=pin, priority=priority, sequence=sequence)


def first(backlog: Backlog, lane: Lane = ANYWHERE, *, by_age: bool = False) -> str:
    group = backlog.next_in(lane, by_age=by_age)
    return backlog.first_of(group)[2] if group is not None else ""


def test_priority_goes_before_age() -> None:
    backlog = backlog_of()
    put(backlog, ("old", 0, 1), ("new", 0, 2), ("urgent", 9, 3), ("patient", -9, 0))
    assert drained(backlog) == ["urgent", "old", "new", "patient"]


def test_the_order_holds_across_groups() -> None:
    backlog = backlog_of()
    put(backlog, ("1", 0, 1), ("4", 0, 4))
    put(backlog, ("2", 0, 2), needs=OTHER)
    put(backlog, ("3", 1, 3), needs=dataclasses.replace(NEEDS, labels=("fast",)))
    assert drained(backlog) == ["3", "1", "2", "4"]


def test_jobs_of_about_the_same_length_share_a_group() -> None:
    backlog = backlog_of()
    for number in range(1_000):
        needs = dataclasses.replace(NEEDS, steps=20, pixels=(1 << 20) - number, signature=f"s{number}")
        put(backlog, (f"{number}", 0, number), needs=needs)
    assert len(backlog._groups) == 1
    put(backlog, ("film", 0, 2_000), needs=dataclasses.replace(NEEDS, steps=20, pixels=100 << 20))
    assert len(backlog._groups) == 2
    assert drained(backlog)[-2:] == ["999", "film"]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "owner": st.sampled_from(["ann", "bob"]),
                "priority": st.integers(-2, 2),
                # Needs that are equal and not the same, too.
                "needs": st.sampled_from([NEEDS, OTHER]).map(dataclasses.replace),
                "least_vram_bytes": st.sampled_from([0, 1]),
            }
        ),
        max_size=20,
    )
)
def test_a_queue_filled_at_once_is_the_one_that_was_filled_job_by_job(jobs: list[dict[str, Any]]) -> None:
    at_once, one_by_one = backlog_of(), backlog_of()
    records = [record(number, **changes) for number, changes in enumerate(jobs, start=1)]
    nearness = {job.job_id: job.sequence % 3 for job in records}
    at_once.fill((job, nearness[job.job_id]) for job in records)
    for job in records:
        one_by_one.add(
            job.job_id, job.needed, owner=job.owner, pin=job.pin, priority=job.priority, sequence=job.sequence,
            near=nearness[job.job_id],
        )  # fmt: skip
    for counted in ("waiting_for", "work_for", "work"):
        assert getattr(at_once, counted) == getattr(one_by_one, counted)
    assert drained(at_once) == drained(one_by_one)


def test_what_nobody_waits_for_any_more_is_freed_without_the_collector() -> None:
    backlog = backlog_of()
    put(backlog, ("1", 0, 1))
    order = weakref.ref(backlog._by_models[NEEDS.models])
    gc.disable()
    try:
        assert drained(backlog) == ["1"]
        assert order() is None
    finally:
        gc.enable()


def test_a_point_of_priority_is_worth_so_many_places_and_no_more() -> None:
    backlog = backlog_of()
    put(backlog, ("old", 0, 1), ("urgent", 1, PLACES), ("later", 1, PLACES + 2))
    assert drained(backlog) == ["urgent", "old", "later"]


def test_by_age_an_urgent_job_of_another_group_goes_before_so_many_and_no_more() -> None:
    backlog = backlog_of()
    put(backlog, ("old", 0, 1))
    put(backlog, ("urgent", 9, 9 * PLACES + 2), needs=OTHER)
    assert first(backlog) == "urgent" and first(backlog, by_age=True) == "old"


def test_who_has_had_less_of_the_fleet_goes_first() -> None:
    shares: dict[str, float] = {}
    backlog = backlog_of(shares)
    put(backlog, ("a", 0, 1))
    put(backlog, ("b", 0, 2), ("c", 0, 3), owner="bob")
    put(backlog, ("z", 1, 4), owner="zoe")
    assert first(backlog) == "z", "priority goes before fairness"
    shares |= {"ann": 5.0, "bob": 3.0}
    backlog.discard("z")
    assert first(backlog) == "b"
    shares["bob"] = 6.0
    assert first(backlog) == "a"
    assert first(backlog, by_age=True) == "a"
    shares["ann"] = 7.0
    assert first(backlog) == "b" and first(backlog, by_age=True) == "a"


def test_a_lane_sees_what_its_workers_can_run_and_a_pinned_job_is_in_its_workers_lane_alone() -> None:
    backlog = backlog_of()
    put(backlog, ("large", 0, 1), needs=dataclasses.replace(NEEDS, vram_bytes=9))
    put(backlog, ("small", 0, 2))
    put(backlog, ("pinned", 0, 3), pin="gpu-0")
    small, large = (DIGEST, (), 8), (DIGEST, (), 10)
    assert first(backlog, Lane(small)) == "small" and first(backlog, Lane(large)) == "large"
    assert first(backlog, Lane(small, "gpu-0")) == "pinned" and not first(backlog, Lane(small, "gpu-1"))
    assert backlog.pinned == {"gpu-0": 1}
    backlog.discard("pinned")
    assert not backlog.pinned and not first(backlog, Lane(small, "gpu-0"))


def test_a_lane_of_certain_models_sees_what_needs_exactly_these() -> None:
    backlog = backlog_of()
    put(backlog, ("large", 0, 1), needs=dataclasses.replace(NEEDS, models=("m",), vram_bytes=9))
    put(backlog, ("both", 0, 2), needs=dataclasses.replace(NEEDS, models=("m", "n")))
    put(backlog, ("pinned", 0, 3), needs=dataclasses.replace(NEEDS, models=("m",)), pin="gpu-0")
    put(backlog, ("one", 0, 4), needs=dataclasses.replace(NEEDS, models=("m",)))
    small = (DIGEST, (), 8)
    assert first(backlog, Lane(small, models=("m",))) == "one"
    assert first(backlog, Lane(small, models=("m", "n"))) == "both"
    assert not first(backlog, Lane(small, models=("n",)))


def test_a_lane_that_is_forgotten_is_asked_anew() -> None:
    able: set[str] = set()
    backlog = Backlog(lambda kind, group: group.nodes[0] in able, Fairness({}), work)
    put(backlog, ("a", 0, 1))
    assert not first(backlog)
    able.add(NEEDS.nodes[0])
    assert not first(backlog)
    backlog.forget(lambda lane: lane == ANYWHERE)
    assert first(backlog) == "a"


def test_what_is_set_aside_or_held_back_counts_again_later() -> None:
    backlog = backlog_of()
    put(backlog, ("a", 0, 1))
    put(backlog, ("b", 0, 2), needs=OTHER)
    put(backlog, ("c", 0, 3), owner="bob")
    group = backlog.next_in(ANYWHERE)
    assert group is not None
    backlog.set_aside(group)
    backlog.hold_back("bob")
    put(backlog, ("first", 0, 0))
    assert first(backlog) == "b", "a job that comes to a group set aside does not bring it back"
    backlog.restore()
    assert first(backlog) == "first"
    assert not backlog.is_shown(next(iter(backlog._by_owner["bob"])))
    backlog.let_go("bob")
    assert drained(backlog) == ["first", "a", "b", "c"]


def test_a_job_put_in_again_moves() -> None:
    backlog = backlog_of()
    put(backlog, ("a", 0, 1), ("b", 0, 2), ("a", -1, 1))
    assert drained(backlog) == ["b", "a"]
    put(backlog, ("a", 0, 1), ("a", 0, 1))
    assert len(backlog) == 1 and drained(backlog) == ["a"]


def test_the_only_job_of_a_group_can_be_pinned_and_let_go_again() -> None:
    backlog, pinned = backlog_of(), Lane(ANYWHERE.kind, "gpu-0")
    assert not first(backlog) and not first(backlog, pinned)
    put(backlog, ("a", 0, 1))
    put(backlog, ("a", 0, 1), pin="gpu-0")
    assert first(backlog, pinned) == "a" and not first(backlog)
    put(backlog, ("a", 0, 1))
    assert first(backlog) == "a" and not first(backlog, pinned)


def test_a_group_that_is_empty_is_gone() -> None:
    backlog = backlog_of()
    put(backlog, ("a", 0, 1), needs=dataclasses.replace(NEEDS, models=("m",)))
    (group,) = backlog.with_models(("m",))
    assert group.key == group_key(dataclasses.replace(NEEDS, models=("m",)), owner="ann", work=1)
    assert (backlog.waiting_for, backlog.work_for) == ({("m",): 1}, {("m",): 1 << group.key.work})
    assert backlog.work == 1 << group.key.work
    backlog.discard("a")
    backlog.discard("a")
    assert not first(backlog) and not list(backlog.with_models(("m",))) and "a" not in backlog
    assert not (backlog._groups or backlog._by_owner or backlog.waiting_for or backlog.work_for or backlog.work)


def test_moving_a_job_for_ever_does_not_grow_the_queue() -> None:
    backlog = backlog_of()
    put(backlog, ("head", 100, 0))
    assert first(backlog) == "head"
    for number in range(10_000):
        put(backlog, ("restless", number % 7, 1), ("shortlived", -number % 9, 2))
        backlog.discard("shortlived")
    (group,) = backlog._groups.values()
    line, alike = backlog._lines[ANYWHERE], backlog._by_models[NEEDS.models]
    assert group.lanes == [alike, line]
    heaps: list[list[Any]] = [group.heap, line.aged._heap]
    heaps += [rank.order._heap for ranks in (alike, line.fair) for rank in ranks._ranks.values()]
    assert all(len(heap) < 200 for heap in heaps)
    assert drained(backlog) == ["head", "restless"]


class Queue(RuleBasedStateMachine):
    """Against a list that is sorted anew each time."""

    jobs = st.integers(0, 5).map(str)
    owners = st.sampled_from(["ann", "bob"])
    #: Small cards, large ones, and the small one that jobs are pinned to.
    lanes = (ANYWHERE, Lane((DIGEST, (), 8)), Lane(ANYWHERE.kind, "gpu-0"))

    def __init__(self) -> None:
        super().__init__()
        self.shares = {"ann": 0.0, "bob": 0.0}
        self.backlog = backlog_of(self.shares)
        #: job -> (its group, turn, sequence)
        self.model: dict[str, tuple[GroupKey, int, int]] = {}
        self.aside: set[GroupKey] = set()
        self.held_back: set[str] = set()

    @rule(
        job=jobs,
        needs=st.sampled_from([NEEDS, OTHER, dataclasses.replace(NEEDS, vram_bytes=8)]),
        owner=owners,
        pin=st.sampled_from(["", "gpu-0"]),
        priority=st.integers(-1, 1),
        near=st.integers(0, 2),
        apart=st.booleans(),
    )
    def put(self, *, job: str, needs: Needs, owner: str, pin: str, priority: int, near: int, apart: bool) -> None:
        sequence = int(job) * (PLACES if apart else 1)
        for _ in range(70 if apart else 1):
            if apart:
                self.take_out(job)
            self.backlog.add(job, needs, owner=owner, pin=pin, priority=priority, sequence=sequence, near=near)
        key = self.backlog._entry[job][3].key
        assert (key.nodes, key.owner, key.pin, key.near) == (needs.nodes, owner, pin, near)
        self.model[job] = (key, sequence - priority * PLACES, sequence)
        self.emptied()

    @rule(job=jobs)
    def take_out(self, job: str) -> None:
        self.backlog.discard(job)
        self.model.pop(job, None)
        self.emptied()

    @rule(owner=owners, more=st.integers(1, 3))
    def serve(self, owner: str, more: int) -> None:
        self.shares[owner] += more

    @rule(lane=st.sampled_from(lanes), by_age=st.booleans())
    def pass_over(self, lane: Lane, by_age: bool) -> None:
        if (group := self.backlog.next_in(lane, by_age=by_age)) is not None:
            self.backlog.set_aside(group)
            self.aside.add(group.key)

    @rule()
    def look_again(self) -> None:
        self.backlog.restore()
        self.aside.clear()

    @rule(owner=owners)
    def hold_back(self, owner: str) -> None:
        self.backlog.hold_back(owner)
        self.held_back.add(owner)

    @rule(owner=owners)
    def let_go(self, owner: str) -> None:
        self.backlog.let_go(owner)
        self.held_back.discard(owner)

    @rule()
    def forget(self) -> None:
        self.backlog.forget(lambda known: known.kind[0] == DIGEST)

    def emptied(self) -> None:
        """A group that is empty is gone, and is not passed over when it comes again."""
        self.aside &= {key for key, _, _ in self.model.values()}

    @invariant()
    def the_first_of_each_order_is_first(self) -> None:
        heads: dict[GroupKey, tuple[int, int]] = {}
        for key, turn, sequence in sorted(self.model.values(), key=lambda job: job[1:]):
            heads.setdefault(key, (turn, sequence))
        assert self.backlog._groups.keys() == heads.keys()
        for lane in self.lanes:
            fair = {}
            for group in self.backlog._groups.values():
                key = group.key
                if key.pin != lane.pin or key.vram_bytes > lane.kind[2]:
                    continue
                if key in self.aside or key.owner in self.held_back:
                    continue
                turn, sequence = heads[key]
                fair[group] = self.backlog.urgency(group, lane.kind)
                priority, share, *after = fair[group]
                assert share >= self.shares[key.owner]
                assert (priority, *after) == ((turn - sequence) // PLACES, -key.near, turn)
            found: list[Group | None] = [self.backlog.next_in(lane, by_age=by_age) for by_age in (False, True)]
            assert [group is not None for group in found] == [bool(fair)] * 2
            if found[0] is not None and found[1] is not None:
                assert fair[found[0]] == min(fair.values())
                assert self.backlog.turn(found[1]) == min(heads[group.key][0] for group in fair)
        assert len(self.backlog) == len(self.model)
        assert all(len(group.heap) <= 2 * group.waiting + 66 for group in self.backlog._groups.values())


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40)
