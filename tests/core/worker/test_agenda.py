"""Errands take turns, sleep, wait for news, and are closed when they are dropped."""

from __future__ import annotations

from collections.abc import Iterator

from worker.agenda import NEWS_MS, Agenda
from worker.errands import NEWS, Errand


class Diary:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def errand(self, name: str, *waits: int) -> Errand:
        try:
            for wait_ms in waits:
                self.lines.append(name)
                yield wait_ms
            self.lines.append(f"{name} done")
        finally:
            self.lines.append(f"{name} closed")


def steps(agenda: Agenda, now_ms: int, most: int = 20) -> Iterator[int]:
    while most and agenda.step(now_ms):
        most -= 1
        yield most


def test_those_that_are_always_due_take_turns() -> None:
    diary, agenda = Diary(), Agenda()
    agenda.add("a", diary.errand("a", 0, 0))
    agenda.add("b", diary.errand("b", 0, 0))
    assert list(steps(agenda, 0)) and not agenda.step(0)
    assert diary.lines[:4] == ["a", "b", "a", "b"]
    assert agenda.deadline_ms() is None and "a" not in agenda


def test_a_sleeper_sleeps_and_can_be_hurried() -> None:
    diary, agenda = Diary(), Agenda()
    agenda.add("a", diary.errand("a", 500, 500))
    assert agenda.step(100) and agenda.deadline_ms() == 600
    assert not agenda.step(599)
    agenda.news()
    assert not agenda.step(599)
    agenda.hurry("a")
    agenda.hurry("nobody")
    assert agenda.step(599)


def test_news_wake_those_that_wait_for_them_and_so_does_time() -> None:
    diary, agenda = Diary(), Agenda()
    agenda.add("a", diary.errand("a", NEWS, NEWS, NEWS))
    assert agenda.step(0) and not agenda.step(1)
    agenda.news()
    assert agenda.step(1) and not agenda.step(2)
    assert agenda.step(1 + NEWS_MS)


def test_what_is_dropped_or_replaced_is_closed() -> None:
    diary, agenda = Diary(), Agenda()
    agenda.add("a", diary.errand("first", 0, 0))
    agenda.step(0)
    agenda.add("a", diary.errand("second", 0, 0))
    agenda.step(0)
    agenda.add("b", diary.errand("third", 0))
    agenda.drop("a")
    agenda.drop("a")
    agenda.step(0)
    agenda.close()
    assert diary.lines == ["first", "first closed", "second", "second closed", "third", "third closed"]


def test_one_that_is_dropped_in_its_own_step_is_closed_after_it() -> None:
    diary, agenda = Diary(), Agenda()

    def suicidal() -> Errand:
        try:
            agenda.drop("a")
            diary.lines.append("still here")
            yield 0
        finally:
            diary.lines.append("closed")

    agenda.add("a", suicidal())
    assert agenda.step(0)
    assert diary.lines == ["still here", "closed"] and "a" not in agenda


def test_one_that_replaces_itself_leaves_the_new_one() -> None:
    diary, agenda = Diary(), Agenda()

    def again() -> Errand:
        agenda.add("a", diary.errand("new", 0))
        yield 0

    agenda.add("a", again())
    agenda.step(0)
    agenda.step(0)
    assert diary.lines == ["new"]
    agenda.close()
