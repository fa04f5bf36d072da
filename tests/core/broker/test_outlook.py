"""When the waiting jobs are likely to begin, as people are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from broker.core.outlook import TRIES, Forecast
from broker.core.rules import Now
from tests.core.broker.given import NEEDS, Given, job_id


def test_with_many_kinds_of_workers_fewer_jobs_are_told_when_they_begin(broker: Given) -> None:
    for number in range(TRIES // 4):
        broker.joined(f"gpu-{number}", credits=0, labels=(f"rack-{number}",))
    for number in range(1, 6):
        broker.submitted(number)
    broker.passes(broker.rules.outlook_every_ms)
    assert [expected.place for expected in broker.fleet.outlook] == [1, 2, 3, 4]


def forecast(*free_ms: int, shut: tuple[str, ...] = ()) -> Forecast:
    """Of workers gpu-0, gpu-1 and so on, on which a job takes 100 ms."""
    stands = [
        SimpleNamespace(kind="kind", free_ms=free_ms, name=f"gpu-{number}", models=(), shut=f"gpu-{number}" in shut)
        for number, free_ms in enumerate(free_ms)
    ]
    rooms: Any = SimpleNamespace(stands=lambda: stands)
    roster: Any = SimpleNamespace(serves=lambda kind, key: True)
    estimates: Any = SimpleNamespace(run_ms=lambda needs, name: 100)
    return Forecast(roster, rooms, estimates, Now(mono_ms=0, utc_ms=0))


def begins(made: Forecast, *pins: str) -> list[int | None]:
    """When jobs begin that wait in this order, pinned to these workers."""
    record = SimpleNamespace(job_id=job_id(1), owner="ann", needs=NEEDS)
    waiting: Any = [(SimpleNamespace(record=record), SimpleNamespace(pin=pin)) for pin in pins]
    return [expected.start_utc_ms for expected in made.expected(waiting)]


def test_a_job_pinned_to_one_worker_leaves_the_others_in_the_order_in_which_they_are_free() -> None:
    made = forecast(0, 50, 10, 60, 70, 20)
    assert begins(made, "gpu-0", "", "", "", "gpu-0", "gpu-9") == [0, 10, 20, 50, 100, None]
    assert begins(made, "", "", "") == [60, 70, 110]


def test_a_forecast_does_not_go_through_all_workers_for_each_pinned_job() -> None:
    made = forecast(*range(2_000))
    kind: Any = "kind"
    before = made._free[kind]
    begins(made, *["gpu-1999"] * 100)
    assert made._free[kind] is before and len(before) == 2_100, "what is new is added, and nothing sorted anew"


def test_nobody_foretells_when_a_worker_begins_that_gives_no_room() -> None:
    assert begins(forecast(0, 50, shut=("gpu-0",)), "", "gpu-0") == [50, None]
    assert begins(forecast(0, shut=("gpu-0",)), "") == [None]
