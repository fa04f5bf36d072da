"""Who goes first among owners, and where one begins who comes late."""

from __future__ import annotations

import dataclasses
import itertools

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
    queue.comes("c", pin="gpu-0")
    assert queue.fairness.share("c") == queue.fairness.share("b") == 0


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
    queue.comes("b")
    queue.comes("a", 300)
    queue.backlog.add("b-0", TOO_LARGE, owner="b", pin="", priority=0, sequence=0)
    queue.serve(200)
    queue.backlog.add("b-0", NEEDS, owner="b", pin="", priority=0, sequence=0, near=1)
    assert queue.fairness.share("b") == 0
    assert queue.serve(1) == "b"


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
