"""What a fleet with nothing to do says all the time, and how little follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from broker.core.fleet import HUSH_BEATS, HUSH_MS
from broker.core.rules import Rules
from broker.core.step import Step
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.records import ProgressKind
from tests.core.broker.given import NEEDS, REQUEST, Given, held


def test_placement_looks_again_only_at_who_says_something_new(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.reports(job, 1, ProgressKind.STARTED)
    steps: list[tuple[bool, Callable[[], Step]]] = [
        (True, lambda: gpu.beats(held(job))),
        (True, lambda: gpu.completes(job)),
        (False, gpu.has_room),
        (False, gpu.beats),
        (True, lambda: gpu.has_room(2)),
        (True, lambda: gpu.beats(comfy_fault="gone")),
        (False, lambda: gpu.beats(comfy_fault="gone")),
    ]
    broker.fleet.roster.by_name["gpu-0"].resident = ("xl",)
    for number, (looks, happens) in enumerate(steps):
        broker.tick()
        touched = broker.fleet.roster.touched
        assert not touched
        happens()
        assert ("gpu-0" in touched) == looks, number


def test_a_worker_is_told_of_which_room_the_broker_knows(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=0)
    gpu.says(wire.Ready(serial=7, credits=1, seen=0))
    gpu.says(wire.Ready(serial=6, credits=0, seen=0))
    gpu.beats()
    assert gpu.last == wire.Beat(need_capabilities=False, ready=7)
    broker.unreachable(gpu)
    gpu.beats()
    assert gpu.last == wire.Beat(need_capabilities=False, ready=0), "whatever it says of its room is news again"


def test_workers_that_beat_wake_nobody_and_the_one_that_does_not_is_lost_in_time(broker: Given) -> None:
    silent, *others = [broker.joined(f"gpu-{n}") for n in range(4)]
    broker.passes(3_000, *others)
    assert broker.fleet.leases.deadlines.next_ms() is None
    lost_ms = broker.rules.lease_ms
    while broker.now_ms < lost_ms:
        assert silent.state == "ready"
        broker.passes(min(broker.fleet.sleep_ms(broker.now_ms), lost_ms - broker.now_ms), *others)
    assert [session.state for session in (silent, *others)] == ["lost", "ready", "ready", "ready"]


def test_only_many_workers_go_unheard_and_only_while_there_is_no_job() -> None:
    few, many = Given(), Given(Rules(heartbeat_ms=HUSH_MS))
    for broker in (few, many):
        broker.joined("gpu-0")
        assert broker.fleet.hush_ms() == 0
    for number in range(1, HUSH_BEATS):
        many.joined(f"gpu-{number}")
    assert many.fleet.hush_ms() == HUSH_MS
    job = many.submitted(needs=dataclasses.replace(NEEDS, nodes=("Nobody's",)))
    assert many.fleet.hush_ms() == 0
    many.asks(client.Cancel(request_id=REQUEST, job_id=job))
    assert many.fleet.hush_ms() == HUSH_MS
