"""Who goes first among owners, and where one begins who comes late."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from broker.core import fairness as module
from broker.core.backlog import Backlog, Kind, Lane
from broker.core.estimates import work
from broker.core.fairness import Fairness
from tests.core.broker.given import DIGEST, NEEDS

SMALL: Kind = (DIGEST, (), 8)
ANYWHERE = Lane(SMALL)
LARGE: Kind = (DIGEST, (), 24)
FILM = dataclasses.replace(NEEDS, vram_bytes=24)
TOO_LARGE = dataclasses.replace(NEEDS, vram_bytes=48)


class Queue:
    """A backlog whose jobs are all of one second, and what was served from it."""

    def __init__(self) -> None:
        self.fairness = Fairness({})
        self.backlog = Backlog(lambda kind, key: kind[2] >= key.vram_bytes, self.fairness, work)
        self._numbers = itertools.count()
        for lane in (ANYWHERE, Lane(LARGE), Lane(SMALL, "gpu-0"), Lane(SMALL, "gpu-1")):
            self.backlog.next_in(lane)  # there are such workers

    def comes(self, owner: str, jobs: int = 1, *, priority: int = 0, pin: str = "", needs: object = NEEDS) -> None:
        for number in itertools.islice(self._numbers, jobs):
            self.backlog.add(
                f"{owner}-{number}", needs, owner=owner, pin=pin, priority=priority, sequence=number  # type: ignore[arg-type]
            )  # fmt: skip

    def serve(self, jobs: int, lane: Lane = ANYWHERE, *, by_age: bool = False) -> str:
        """The owners of the next jobs, a letter each."""
        owners = ""
        for _ in range(jobs):
            group = self.backlog.next_in(lane, by_age=by_age)
            if group is None:
                break
            self.backlog.discard(self.backlog.first_of(group)[2])
            self.fairness.served(group.key.owner, 1_000)
            owners += group.key.owner
        return owners


def test_who_comes_late_does_not_wait_for_those_left_behind_by_priority() -> None:
    queue = Queue()
    queue.comes("a", 300, priority=5)
    queue.comes("b", 300)
    assert queue.serve(200) == "a" * 200
    queue.comes("c", 2)
    assert queue.serve(100) == "a" * 100, "priority goes before fairness"
    assert queue.serve(4) == "bcbc"


def test_who_comes_late_does_not_wait_for_those_left_behind_by_age() -> None:
    queue = Queue()
    queue.comes("a", 300)
    queue.comes("b", 300)
    assert queue.serve(200, by_age=True) == "a" * 200
    queue.comes("c", 2)
    assert queue.serve(4) == "bcbc"


def test_who_comes_late_does_not_wait_for_those_left_behind_on_another_card() -> None:
    queue = Queue()
    queue.comes("a", 300, pin="gpu-0")
    queue.comes("b", 300, pin="gpu-1")
    assert queue.serve(200, Lane(SMALL, "gpu-0")) == "a" * 200
    queue.comes("c", 2, pin="gpu-1")
    queue.comes("d", 2)
    assert queue.serve(4, Lane(SMALL, "gpu-1")) == "bcbc"
    assert queue.serve(2) == "dd"


def test_to_a_pin_those_count_that_may_go_there_too() -> None:
    queue = Queue()
    queue.comes("a", 300, pin="gpu-0")
    queue.comes("b", 300)
    queue.serve(200, Lane(SMALL, "gpu-0"))
    queue.comes("c", 2, pin="gpu-0")
    assert queue.serve(2, Lane(SMALL, "gpu-0")) == "cc" and queue.serve(1) == "b"


def test_whom_nobody_can_serve_holds_nobody_back() -> None:
    queue = Queue()
    queue.comes("z", needs=TOO_LARGE)
    queue.comes("a", 300)
    queue.serve(200)
    queue.comes("b", 3)
    assert queue.serve(4) in ("abab", "baba")


def test_who_fits_more_cards_begins_where_its_turn_comes_soonest_and_passes_nobody_there() -> None:
    """Films fill the one large card, and have had less than what runs on the many small ones."""
    queue = Queue()
    queue.comes("f", 50, needs=FILM)
    queue.comes("a", 300)
    queue.serve(10, Lane(LARGE))
    queue.serve(200)
    queue.comes("b", 10)
    assert queue.serve(6) in ("ababab", "bababa")
    assert set(queue.serve(3, Lane(LARGE))) == {"f"}


def test_time_not_asked_for_is_not_saved_up() -> None:
    queue = Queue()
    queue.comes("a", 500)
    queue.comes("b", 1)
    assert queue.serve(2) == "ab"
    queue.serve(200)
    queue.comes("b", 100)
    assert queue.serve(6).count("b") == 3


def test_one_at_a_time_is_served_no_more_often_than_all_at_once() -> None:
    queue = Queue()
    queue.comes("a", 300)
    queue.comes("b", 300)
    owners = ""
    for _ in range(90):
        if not queue.backlog.waiting_of("c"):
            queue.comes("c")
        owners += queue.serve(1)
    assert [owners.count(owner) for owner in "abc"] == [30, 30, 30]


def test_who_comes_when_nobody_waits_is_level_with_whoever_was_served_furthest_on() -> None:
    queue = Queue()
    queue.comes("b")
    queue.comes("a", 100)
    queue.serve(101)
    queue.comes("b", 9)
    queue.comes("a", 9)
    assert queue.serve(6) == "bbabab"


def test_a_job_that_moves_in_the_queue_keeps_its_owners_place() -> None:
    queue = Queue()
    queue.comes("a", 300)
    queue.comes("b")
    assert queue.serve(200, by_age=True) == "a" * 200
    queue.backlog.add("b-300", NEEDS, owner="b", pin="", priority=0, sequence=300, near=1)
    assert queue.serve(1) == "b"


@pytest.mark.parametrize("low", [{"needs": FILM}, {"priority": -50}], ids=["for another card", "at a low priority"])
def test_who_worked_while_nobody_asked_is_not_passed_by_whoever_comes_then(low: dict[str, Any]) -> None:
    """Though somebody waits all the while who has had less."""
    queue = Queue()
    queue.comes("z", 50, **low)
    queue.comes("a", 1_000)
    queue.serve(1_000)
    queue.comes("b", 300)
    queue.serve(10)
    queue.comes("a")
    assert "a" in queue.serve(2)


@pytest.mark.parametrize(
    "parked",
    [{"needs": TOO_LARGE}, {"needs": FILM}, {"pin": "gpu-1"}, {"priority": -50}],
    ids=["nobody can run it", "on a card of its own", "pinned", "at a low priority"],
)
def test_a_job_that_waits_elsewhere_saves_nothing_up(parked: dict[str, Any]) -> None:
    queue = Queue()
    queue.comes("f", 20, needs=FILM)
    queue.comes("p", 20, pin="gpu-1")
    queue.comes("z", **parked)
    queue.comes("a", 1_000)
    queue.serve(400)
    queue.comes("z", 100)
    assert queue.serve(100).count("z") in (49, 50, 51)


def test_where_one_begins_follows_nobody_into_another_lane() -> None:
    queue = Queue()
    queue.comes("a", 700, pin="gpu-0")
    queue.comes("b", 700, pin="gpu-1")
    queue.serve(600, Lane(SMALL, "gpu-0"))
    queue.comes("c", pin="gpu-0")
    queue.comes("c", 3, pin="gpu-1")
    assert queue.serve(2, Lane(SMALL, "gpu-0")) in ("ac", "ca")
    assert queue.serve(4, Lane(SMALL, "gpu-1")).count("c") >= 1
    queue.comes("d", priority=5)
    queue.comes("d", 3, pin="gpu-1")
    assert queue.serve(1) == "d"
    assert "d" in queue.serve(5, Lane(SMALL, "gpu-1"))


def test_to_whom_all_pin_their_jobs_a_worker_is_shared_with_those_who_do_not() -> None:
    queue = Queue()
    queue.comes("a", 300, pin="gpu-0")
    queue.comes("b", 300, pin="gpu-1")
    queue.serve(200, Lane(SMALL, "gpu-0"))
    queue.comes("c", 9)
    urgencies = [queue.backlog.urgency(group, SMALL)[1] for group in queue.backlog._groups.values()]
    assert urgencies == [200_000, 0, 200_000], "level with where its turn comes soonest"


def test_what_is_served_in_one_lane_counts_in_all() -> None:
    queue = Queue()
    queue.comes("a", 300, pin="gpu-0")
    queue.comes("a", 300)
    queue.comes("b", 300)
    assert queue.serve(100, Lane(SMALL, "gpu-0")) == "a" * 100
    assert queue.serve(100) == "b" * 100


def test_nobody_is_kept_for_ever() -> None:
    queue = Queue()
    queue.comes("a", 5_000)
    for number in range(3_000):
        queue.comes(f"owner {number}")
        queue.serve(2)
    [rank] = queue.backlog._lines[ANYWHERE].fair._ranks.values()
    assert len(rank.lifts) < 1_100 and set(rank.standing) == {"a"} | {
        group.key.owner for group in queue.backlog._groups.values()
    }


def test_owners_are_forgotten_in_the_end_but_none_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNERS", 10)
    queue = Queue()
    queue.comes("z", needs=TOO_LARGE)
    queue.comes("a", 300)
    queue.serve(200)
    for number in range(30):
        queue.comes(f"owner {number}", needs=FILM)
        queue.serve(1, Lane(LARGE))
    assert len(queue.fairness._had) <= 14
    assert queue.fairness.share("a") >= 200_000 and queue.fairness.share("z") == 0
