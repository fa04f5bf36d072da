"""When a prompt is looked for, and when it is given up."""

from __future__ import annotations

from broker.protocol.records import Limits, Reason
from worker.core.patience import AGAIN_MS, GRACE_MS, Patience, earliest


def patience(stall_ms: int = 100_000, start_to_close_ms: int = 500_000, hung_ms: int = 0) -> Patience:
    limits = Limits(start_to_close_ms=start_to_close_ms, stall_ms=stall_ms, hung_ms=hung_ms)
    return Patience(limits, 5_000, 0)


def test_the_earliest_of_no_times_is_none() -> None:
    assert earliest() is None and earliest(None, None) is None and earliest(3, None, 2) == 2


def test_a_look_is_due_once() -> None:
    waits = patience()
    waits.look_at(10)
    assert not waits.look_due(9) and waits.look_due(10) and not waits.look_due(11)
    assert waits.deadline_ms() == 100_000


def test_misses_count_only_in_a_row() -> None:
    waits = patience()
    assert not waits.missed(0)
    waits.found(0)
    assert not waits.missed(0) and waits.missed(0)
    assert waits.look_ms == AGAIN_MS
    waits.start_anew()
    assert not waits.missed(0)


def test_a_limit_is_said_once_and_followed_by_grace() -> None:
    waits = patience(stall_ms=1_000)
    assert waits.overdue(999) is None
    stalled = waits.overdue(1_000)
    assert stalled is not None and stalled.reason is Reason.STALLED
    assert waits.overdue(1_001) is None
    assert not waits.exhausted(1_000 + GRACE_MS - 1) and waits.exhausted(1_000 + GRACE_MS)
    waits.rest()
    assert waits.deadline_ms() is None and not waits.exhausted(10**9)


def test_the_limit_on_the_run_counts_from_its_start() -> None:
    waits = patience(start_to_close_ms=2_000)
    waits.running(5_000)
    assert waits.deadline_ms() == 7_000
    late = waits.overdue(7_000)
    assert late is not None and late.reason is Reason.TIMEOUT


def test_a_run_that_takes_far_longer_than_its_like_is_hung_though_comfyui_says_that_it_runs() -> None:
    waits = patience(hung_ms=30_000)
    waits.running(5_000)
    assert waits.deadline_ms() == 35_000
    waits.sign(34_000)
    assert waits.overdue(34_999) is None
    hung = waits.overdue(35_000)
    assert hung is not None and hung.reason is Reason.STALLED and "30 s" in hung.text
