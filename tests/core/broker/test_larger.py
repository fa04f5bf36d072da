"""A job for which a card's memory was too small goes to a larger one, once; and how long a run of its kind may take."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.leases import HUNG, LARGER_LOOK_MS
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import JobState, Reason
from tests.core.broker.given import REQUEST, TIMINGS, Given, Session

GIB = 1 << 30


def outgrow(broker: Given, gpu: Session) -> str:
    """A job ran out of memory there, and its backoff is over; whoever has room has none."""
    job = broker.running(gpu)
    gpu.fails(job, Reason.OUT_OF_MEMORY)
    broker.passes(1_000, *broker.sessions.values())
    return job


def test_it_waits_for_the_larger_card_though_the_small_one_is_free(broker: Given) -> None:
    small = broker.joined("small")
    large = broker.joined("large", credits=0, vram_bytes=24 * GIB)
    job = outgrow(broker, small)
    small.has_room()
    broker.tick()
    assert broker.state(job) is JobState.QUEUED and broker.records[job].least_vram_bytes == 8 * GIB + 1
    large.has_room()
    broker.tick()
    assert large.dispatched == [(job, 2)]


def test_that_is_remembered_over_a_restart_of_the_broker(broker: Given) -> None:
    small = broker.joined("small")
    broker.joined("large", credits=0, vram_bytes=24 * GIB)
    job = outgrow(broker, small)
    broker.start("6" * 32)
    small = broker.joined("small")
    broker.tick()
    assert broker.state(job) is JobState.QUEUED and not small.dispatched
    large = broker.joined("large", vram_bytes=24 * GIB)
    broker.tick()
    assert large.dispatched == [(job, 2)]


@pytest.mark.parametrize("how", ["lost", "drained", "paused", "down"])
def test_once_the_larger_card_is_gone_any_will_do(broker: Given, how: str) -> None:
    small = broker.joined("small")
    large = broker.joined("large", credits=0, vram_bytes=24 * GIB)
    job = outgrow(broker, small)
    small.has_room()
    if how == "drained":
        large.says(wire.Draining())
    if how == "paused":
        broker.asks(client.Pause(request_id=REQUEST, worker="large"))
    if how == "down":
        for _ in range(LARGER_LOOK_MS // 5_000 - 1):
            large.beats(comfy_fault="no answer")
            broker.passes(5_000, small)
        large.beats(comfy_fault="no answer")
        assert len(small.dispatched) == 1, "it may come up"
        broker.passes(5_000, small)
    else:
        broker.passes(LARGER_LOOK_MS, small)
    assert small.dispatched[1:] == [(job, 2)]


@pytest.mark.parametrize("restarted", [False, True])
def test_that_holds_for_a_job_that_the_larger_card_was_lost_with(broker: Given, restarted: bool) -> None:
    small = broker.joined("small")
    large = broker.joined("large", credits=0, vram_bytes=24 * GIB)
    job = outgrow(broker, small)
    large.has_room()
    broker.tick()
    large.accepts(job, 2)
    broker.passes(2 * LARGER_LOOK_MS, small, large)
    if restarted:
        broker.start("6" * 32)
        small = broker.joined("small", credits=0)
    small.has_room()
    broker.passes(broker.rules.lease_ms + 2 * LARGER_LOOK_MS, small)
    assert small.dispatched[-1] == (job, 3)


def test_without_a_larger_card_it_is_tried_once_more_where_it_fits_by_luck(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = outgrow(broker, gpu)
    gpu.has_room()
    broker.tick()
    assert gpu.dispatched == [(job, 1), (job, 2)]
    gpu.fails(job, Reason.OUT_OF_MEMORY, 2)
    failure = broker.records[job].failure
    assert broker.state(job) is JobState.FAILED and failure is not None and failure.reason is Reason.OUT_OF_MEMORY


def test_a_person_who_asks_again_begins_anew(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = outgrow(broker, gpu)
    gpu.has_room()
    broker.tick()
    gpu.fails(job, Reason.OUT_OF_MEMORY, 2)
    broker.retries(job)
    assert not broker.records[job].ran_out and not broker.records[job].least_vram_bytes


# ---- how long a run of its kind may take


def limits(gpu: Session) -> list[int]:
    return [message.limits.hung_ms for message in gpu.got if isinstance(message, wire.Dispatch)]


def test_the_limit_for_a_hung_run_is_learnt(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    for number in (1, 2, 3, 4):
        gpu.has_room()
        job = broker.running(gpu, number)
        timings = dataclasses.replace(TIMINGS, running_ms=60_000)
        gpu.says(wire.Complete(job_id=job, attempt=1, outputs=(), timings=timings))
    assert limits(gpu) == [0, 0, 0, HUNG * 60_001]


def test_the_limit_for_a_hung_run_is_never_less_than_the_one_on_silence(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    for number in (1, 2, 3, 4):
        gpu.has_room()
        gpu.completes(broker.running(gpu, number))
    assert limits(gpu)[-1] == broker.rules.stall_ms
