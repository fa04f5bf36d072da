"""Due times that are asked for, changed and fall."""

from __future__ import annotations

from broker.core.deadlines import Deadlines


def falling(deadlines: Deadlines, mono_ms: int) -> list[str]:
    return [key for _, key in deadlines.fallen(mono_ms)]


def test_nothing_falls_early_and_everything_falls_in_order() -> None:
    deadlines = Deadlines()
    for due_ms in (300, 100, 200):
        deadlines.at(due_ms, "silent", str(due_ms))
    assert deadlines.next_ms() == 100
    assert falling(deadlines, 99) == []
    assert falling(deadlines, 200) == ["100", "200"]
    assert falling(deadlines, 1_000) == ["300"]
    assert deadlines.next_ms() is None


def test_the_last_time_asked_for_counts_alone() -> None:
    deadlines = Deadlines()
    deadlines.at(100, "confirm", "a")
    deadlines.at(500, "confirm", "a")
    assert falling(deadlines, 499) == []
    assert falling(deadlines, 500) == ["a"]
    deadlines.at(500, "confirm", "b")
    deadlines.at(100, "confirm", "b")
    assert falling(deadlines, 100) == ["b"]
    assert falling(deadlines, 500) == []


def test_kinds_do_not_mix() -> None:
    deadlines = Deadlines()
    deadlines.at(100, "confirm", "a")
    deadlines.at(200, "backoff", "a")
    assert list(deadlines.fallen(200)) == [("confirm", "a"), ("backoff", "a")]


def test_asked_for_twice_it_falls_once() -> None:
    deadlines = Deadlines()
    deadlines.at(100, "silent", "a")
    deadlines.at(100, "silent", "a")
    assert falling(deadlines, 100) == ["a"]


def test_what_is_asked_for_during_the_sweep_falls_in_it_only_when_its_time_has_come() -> None:
    deadlines, seen = Deadlines(), []
    deadlines.at(100, "silent", "first")
    for _, key in deadlines.fallen(150):
        seen.append(key)
        if key == "first":
            deadlines.at(150, "silent", "now")
            deadlines.at(151, "silent", "later")
    assert seen == ["first", "now"]
    assert deadlines.next_ms() == 151
