"""What happened within an hour is counted in a bounded room."""

from __future__ import annotations

import pytest

from broker.core.last_hour import MINUTE_MS, MINUTES, LastHour

HOUR_MS = MINUTES * MINUTE_MS
BEGAN_MS = 12_345_678


def test_counts_what_happened_within_an_hour() -> None:
    hour = LastHour()
    for at_ms in range(BEGAN_MS, BEGAN_MS + HOUR_MS, MINUTE_MS // 4):
        hour.add(at_ms)
    assert hour.count == 4 * MINUTES


@pytest.mark.parametrize(("later_ms", "counted"), [(0, 1), (HOUR_MS, 1), (HOUR_MS + MINUTE_MS, 0), (9 * HOUR_MS, 0)])
def test_forgets_what_is_older_than_that(later_ms: int, counted: int) -> None:
    hour = LastHour()
    hour.add(BEGAN_MS)
    hour.forget(BEGAN_MS + later_ms)
    assert hour.count == counted


def test_what_happens_later_makes_what_is_old_go() -> None:
    hour = LastHour()
    hour.add(BEGAN_MS)
    hour.add(BEGAN_MS + 2 * HOUR_MS)
    assert hour.count == 1


def test_keeps_no_more_than_a_number_a_minute() -> None:
    hour = LastHour()
    for at_ms in range(BEGAN_MS, BEGAN_MS + 3 * HOUR_MS, 500):
        hour.add(at_ms)
    assert len(hour._minutes) <= MINUTES + 1
    assert hour.count == pytest.approx(2 * 3_600, rel=2 / MINUTES)
