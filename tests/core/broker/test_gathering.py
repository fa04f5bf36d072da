"""What waits a moment for what follows: news of jobs that go on, and that ends are recorded."""

from __future__ import annotations

from typing import Any

import pytest

from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.events import JobChanged, JobGone
from broker.protocol.records import JobState, ProgressKind
from broker.turn import GATHER_MS
from tests.core.broker.given import (
    REQUEST,
    job_id,
    report,
    submit_of,
)
from tests.core.broker.house import House, complete, told


def test_a_job_that_is_soon_over_is_told_of_once_and_when_it_is_over(house: House) -> None:
    house.opens()
    house.later()
    assert house.takes(submit_of(1)).published == []
    house.now_ms += GATHER_MS - 1
    told_of = [m.job.state for m in house.takes(complete(job_id(1))).published if isinstance(m, JobChanged)]
    assert told_of == [JobState.SUCCEEDED]


def test_a_job_that_goes_on_is_told_of_soon(house: House) -> None:
    house.opens()
    house.later()
    house.takes(submit_of(1))
    assert house.turn.sleep_ms(house.now_ms) <= GATHER_MS
    house.now_ms += GATHER_MS - 1
    assert house.takes().published == []
    house.now_ms += 1
    assert [type(m) for m in house.takes().published] == [JobChanged]


def test_progress_is_told_at_once_with_all_that_came_before_it(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    out = house.takes(report(job_id(1), 1, ProgressKind.STEP, 1))
    (shown,) = [m.job for m in out.published if isinstance(m, JobChanged)]
    assert shown.progress is not None and shown.progress.kind is ProgressKind.STEP


def test_that_an_end_is_recorded_leaves_with_the_next_job_and_else_soon(house: House) -> None:
    house.opens()
    house.takes(submit_of(1))
    assert told(house.takes(complete(job_id(1)))) == []
    out = house.takes(submit_of(2), wire.Ready(serial=2, credits=1, seen=1))
    assert [type(send.message) for send in out.to_workers] == [wire.Dispatch]
    assert told(out) == [wire.Recorded(job_id=job_id(1), attempt=1)]
    house.takes(complete(job_id(2)))
    assert told(house.later()) == [wire.Recorded(job_id=job_id(2), attempt=1)]
    assert told(house.later()) == []


def test_that_an_end_is_recorded_asks_for_no_commit_of_its_own(house: House) -> None:
    house.opens(credits=2)
    house.takes(submit_of(1), submit_of(2))
    house.takes(complete(job_id(1)))
    house.store.calls.clear()
    house.now_ms += GATHER_MS
    out = house.takes(wire.Accepted(job_id=job_id(2), attempt=1, prompt_id="p"))
    assert told(out) == [wire.Recorded(job_id=job_id(1), attempt=1)]
    assert house.store.calls == ["update", "story"], "what may wait for a commit still does"


@pytest.mark.parametrize("kind", [client.Cancel, client.Retry, client.Delete])
def test_what_somebody_has_done_to_a_job_is_told_at_once(house: House, kind: type[Any]) -> None:
    house.takes(submit_of(1))
    if kind is not client.Cancel:
        house.takes(client.Cancel(request_id=REQUEST, job_id=job_id(1)))
    out = house.takes(kind(request_id=REQUEST, job_id=job_id(1)))
    assert {type(m) for m in out.published} == {JobGone if kind is client.Delete else JobChanged}


def test_a_broker_that_ends_keeps_nothing_back(house: House) -> None:
    house.opens()
    house.later()
    house.takes(submit_of(1))
    house.takes(complete(job_id(1)), wire.Ready(serial=2, credits=0, seen=1))
    house.takes(submit_of(2))
    out = house.turn.end()
    assert [m.job.job_id for m in out.published if isinstance(m, JobChanged)] == [job_id(2)]
    assert told(out) == [wire.Recorded(job_id=job_id(1), attempt=1)] and house.turn.saved
