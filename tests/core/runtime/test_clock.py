"""Both clocks are read, in the units they say."""

from __future__ import annotations

import time

from broker.runtime.clock import now


def test_both_clocks_in_milliseconds() -> None:
    before = time.monotonic_ns(), time.time_ns()
    found = now()
    after = time.monotonic_ns(), time.time_ns()
    for value, low, high in zip(found, before, after, strict=True):
        assert low // 1_000_000 <= value <= high // 1_000_000


def test_the_monotonic_clock_does_not_run_backwards() -> None:
    readings = [now().monotonic_ms for _ in range(100)]
    assert readings == sorted(readings)
