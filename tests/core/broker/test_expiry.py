"""Deadlines: who goes before whom for their sake, and the end of what is not begun in time."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.expiry import LOOK_MS, NEAR_MS, NEAREST, nearness
from broker.core.placing import HASTE_MS
from broker.protocol import client
from broker.protocol.records import JobState, Phase, ProgressKind, Reason
from tests.core.broker.given import NEEDS, REQUEST, Given, Session, held, submit_of
from tests.core.broker.test_placing import (
    PICTURE,
    PONY,
    XL,
    busy_holder,
    needing,
    ran_each,
    runs,
    taught,
    where,
    worker,
)

MINUTE_MS = 60_000


def served(broker: Given, gpu: Session, count: int) -> list[str]:
    """The next jobs that go out, each taking a second."""
    order = []
    for _ in range(count):
        broker.tick()
        job, attempt = gpu.dispatched[-1]
        order.append(job)
        runs(gpu, job, 1_000, attempt=attempt)
    return order


@pytest.mark.parametrize(
    ("left_ms", "near"),
    [
        (2 * NEAR_MS, 0),
        (NEAR_MS + 1, 0),
        (NEAR_MS, 1),
        (NEAR_MS // 2 + 1, 1),
        (NEAR_MS // 2, 2),
        (1, NEAREST),
        (0, NEAREST),
    ],
)
def test_a_deadline_is_nearer_by_one_with_each_half_of_an_hour(left_ms: int, near: int) -> None:
    assert nearness(left_ms) == near


def test_of_ones_own_jobs_the_nearest_deadline_goes_first_and_a_far_one_in_its_turn(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    plain = [broker.submitted(number) for number in (1, 2)]
    far = broker.submitted(3, deadline_ms=3 * NEAR_MS)
    near, nearer = broker.submitted(4, deadline_ms=40 * MINUTE_MS), broker.submitted(5, deadline_ms=5 * MINUTE_MS)
    assert served(broker, gpu, 5) == [nearer, near, *plain, far]


def test_a_deadline_comes_near_while_its_job_waits(broker: Given) -> None:
    first, second = broker.submitted(1), broker.submitted(2, deadline_ms=NEAR_MS + 30 * MINUTE_MS)
    broker.passes(29 * MINUTE_MS)
    assert broker.fleet.jobs.live[second].near == 0
    broker.passes(2 * MINUTE_MS)
    assert broker.fleet.jobs.live[second].near == 1
    broker.passes(NEAR_MS // 2)
    assert broker.fleet.jobs.live[second].near == 2
    gpu = broker.joined("gpu-1")
    assert served(broker, gpu, 2) == [second, first]


def test_a_deadline_is_still_near_after_a_restart_and_after_a_lost_attempt(broker: Given) -> None:
    broker.submitted(1)
    hasty = broker.submitted(2, deadline_ms=30 * MINUTE_MS)
    broker.start("6" * 32)
    gpu = broker.joined("gpu-1")
    broker.tick()
    assert gpu.dispatched == [(hasty, 1)]
    gpu.accepts(hasty)
    gpu.fails(hasty, Reason.COMFY_LOST)
    assert broker.fleet.jobs.live[hasty].near > 0


def test_deadlines_get_nobody_more_of_the_fleet(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    for number in range(1, 21):
        broker.submitted(number, owner="bob")
    hasty = {broker.submitted(number, owner="ann", deadline_ms=10 * MINUTE_MS) for number in range(21, 41)}
    order = served(broker, gpu, 20)
    assert len(hasty.intersection(order[10:])) == 5, "owners take turns as ever"


def test_a_deadline_is_no_priority(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    hasty, urgent = broker.submitted(1, deadline_ms=MINUTE_MS), broker.submitted(2, priority=1)
    assert served(broker, gpu, 2) == [urgent, hasty]


@pytest.mark.parametrize(("near", "first"), [(False, "warm"), (True, "cold")])
def test_ones_own_jobs_do_not_go_before_a_near_deadline_for_the_sake_of_loaded_models(
    near: bool, first: str, broker: Given
) -> None:
    gpu = worker(broker, "gpu-1")
    taught(broker, gpu, 100, XL)
    cold = broker.submitted(1, needs=needing(PONY), deadline_ms=10 * MINUTE_MS if near else None)
    warm = broker.submitted(2, needs=needing(XL))
    broker.tick()
    assert gpu.dispatched[-1][0] == {"cold": cold, "warm": warm}[first]


def test_a_job_does_not_wait_for_a_worker_that_comes_to_it_after_its_deadline(broker: Given) -> None:
    busy_holder(broker)
    worker(broker, "gpu-2")
    hasty = broker.submitted(2, needs=needing(XL), deadline_ms=3_000)
    broker.tick()
    assert where(broker, hasty) == "gpu-2", "gpu-1 holds its models, but is busy for 4 s"


def fast_and_slow(broker: Given) -> tuple[Session, Session]:
    """A picture takes the one a minute, and the other ten."""
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, MINUTE_MS))
    ran_each(broker, PICTURE, (slow, 10 * MINUTE_MS), number=200)
    return fast, slow


def begun(broker: Given, session: Session, number: int) -> str:
    job = broker.running(session, number, needs=PICTURE, pin=session.name)
    session.reports(job, 1, ProgressKind.STARTED)
    return job


def go_on(broker: Given, for_s: int, *running: tuple[Session, str]) -> None:
    """Seconds pass. running: workers and the job that each runs; what it holds beside is staged."""
    for _ in range(for_s):
        broker.now_ms += 1_000
        for session, runs_now in running:
            mine = [(job.record.job_id, job.record.attempt) for job in broker.held_by(session)]
            phases = (Phase.RUNNING if job == runs_now else Phase.STAGED for job, _ in mine)
            session.beats(*(held(*one, phase) for one, phase in zip(mine, phases, strict=True)), gpu_busy=0.0)
        broker.tick()


def test_a_job_does_not_miss_its_deadline_for_a_faster_worker_that_takes_longer_than_expected(broker: Given) -> None:
    fast, slow = fast_and_slow(broker)
    first = begun(broker, fast, 1)
    hasty = broker.submitted(2, needs=PICTURE, deadline_ms=MINUTE_MS + HASTE_MS + 1_000)
    broker.tick()
    assert broker.state(hasty) is JobState.QUEUED, "the fast one is expected in time"
    go_on(broker, 62, (fast, first), (slow, ""))
    assert where(broker, hasty) == "slow", "it had room all the time"


@pytest.mark.parametrize("after_s", [0, 25, 35])
def test_a_job_is_not_taken_back_to_miss_its_deadline(after_s: int, broker: Given) -> None:
    """after_s: when a faster worker is there, and busy."""
    fast, slow = fast_and_slow(broker)
    fast.has_room(0)
    slow.has_room(2)
    running = begun(broker, slow, 1)
    staged = broker.running(slow, 2, needs=PICTURE, deadline_ms=30_000)
    slow.has_room(0)
    go_on(broker, after_s, (fast, ""), (slow, running))
    fast.has_room()
    busy = begun(broker, fast, 3)
    go_on(broker, 40, (fast, busy), (slow, running))
    assert broker.state(staged) is JobState.RUNNING, broker.story[staged][-1].text


def test_however_many_deadlines_come_near_a_decision_looks_at_a_few_groups(broker: Given) -> None:
    for number in range(1, 200):
        broker.submitted(number, deadline_ms=number * 37_000)
    assert len(broker.fleet.jobs.backlog._groups) <= NEAREST + 1


def test_ones_own_job_without_a_deadline_does_not_wait_for_ever(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    patient, number = broker.submitted(1), 1
    for _ in range(64):
        for _ in range(2):
            number += 1
            broker.asks(submit_of(number, needs=dataclasses.replace(NEEDS, signature="x"), deadline_ms=5 * MINUTE_MS))
        if patient in served(broker, gpu, 1):
            return
    raise AssertionError("what came later went first, each time")


def test_a_job_is_not_begun_after_its_deadline(broker: Given) -> None:
    job, soon = broker.submitted(1, deadline_ms=5_000), broker.submitted(2, deadline_ms=60_000)
    broker.passes(4_999)
    assert broker.state(job) is JobState.QUEUED
    broker.passes(1)
    failed = broker.records[job].failure
    assert broker.state(job) is JobState.FAILED and failed is not None and failed.reason is Reason.EXPIRED
    broker.start("6" * 32)
    gpu = broker.joined("gpu-1")
    broker.tick()
    gpu.accepts(soon)
    broker.passes(60_000, gpu)
    assert broker.state(soon) is JobState.RUNNING, "it was begun in time"


def test_a_far_deadline_is_kept_and_costs_nothing_once_its_job_is_over(broker: Given) -> None:
    far, over = broker.submitted(1, deadline_ms=2 * LOOK_MS + 1), broker.submitted(2, deadline_ms=1_000 * LOOK_MS)
    broker.asks(client.Cancel(request_id=REQUEST, job_id=over))
    broker.passes(2 * LOOK_MS)
    assert broker.state(far) is JobState.QUEUED
    broker.passes(1)
    assert broker.state(far) is JobState.FAILED
    assert broker.fleet.leases.deadlines.next_ms() is None


def test_a_deadline_counts_again_when_an_attempt_was_lost(broker: Given) -> None:
    gpu = broker.joined("gpu-1")
    job = broker.running(gpu, 1, deadline_ms=5_000)
    broker.passes(6_000, gpu)
    gpu.fails(job, Reason.COMFY_LOST)
    broker.tick()
    assert broker.state(job) is JobState.FAILED


def test_a_job_that_is_asked_for_again_has_no_deadline_any_more(broker: Given) -> None:
    job = broker.submitted(1, deadline_ms=1_000)
    broker.passes(1_000)
    assert broker.asks(client.Retry(request_id=REQUEST, job_id=job)).job.deadline_utc_ms is None
    broker.passes(60_000)
    assert broker.state(job) is JobState.QUEUED
