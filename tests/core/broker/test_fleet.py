"""Time, placement over the whole fleet, and what is published: the door of the core and what its tick does."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.backlog import GroupKey, Kind
from broker.core.events import Tick
from broker.core.rules import Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.events import JobChanged, JobPreview, StatsChanged, WorkerChanged, WorkerGone
from broker.protocol.records import JobState, ProgressKind, Reason, WorkerView
from tests.core.broker.given import NEEDS, REQUEST, STREAM, Given, held, job_id

# ---- time


@pytest.mark.parametrize("late_ms", [5_000, 30_000, 3_600_000])
def test_a_late_loop_costs_nobody_a_lease(broker: Given, late_ms: int) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    broker.passes(4_000, gpu)
    broker.now_ms += late_ms  # nothing was read, nothing was decided
    broker.tick()
    assert broker.state(job) is JobState.RUNNING and gpu.state == "busy"
    broker.passes(20_000, gpu)
    assert broker.state(job) is JobState.RUNNING


def test_a_late_loop_costs_no_dispatch_and_no_resume_its_confirmation(broker: Given) -> None:
    gone = broker.joined("gpu-0")
    offered = broker.running(gone, 1)
    broker.worker("gpu-0").announces()
    other = broker.joined("gpu-1")
    sent = broker.leased(other, 2)
    broker.now_ms += 60_000
    broker.tick()
    assert (broker.state(offered), broker.state(sent)) == (JobState.RUNNING, JobState.LEASED)


def test_a_late_loop_makes_no_lease_longer_either(broker: Given) -> None:
    """A worker whose last word was read in the late turn is lost a lease later, not a lease and the lateness later."""
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    broker.now_ms += 120_000
    gpu.beats(held(job))
    broker.tick()
    broker.passes(broker.rules.lease_ms + 1_000)
    assert broker.state(job) is JobState.QUEUED


def test_a_loop_that_keeps_its_time_is_not_late(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    broker.passes(broker.rules.lease_ms + 1)
    assert broker.state(job) is JobState.QUEUED and gpu.state == "lost"


@pytest.mark.parametrize("jump_ms", [-86_400_000, 3_600_000])
def test_the_wall_clock_decides_nothing(broker: Given, jump_ms: int) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    jumped = dataclasses.replace(broker.now, utc_ms=max(0, broker.now.utc_ms + jump_ms))
    step = broker.fleet.handle(Tick(), jumped)
    assert not step.writes and broker.state(job) is JobState.RUNNING
    assert broker.fleet.stats(jumped).uptime_ms >= 0


def test_the_loop_sleeps_until_the_next_thing_is_due(broker: Given) -> None:
    broker.passes(2_000)
    assert broker.fleet.sleep_ms(broker.now_ms) == broker.rules.turn_ms
    gpu = broker.joined("gpu-0", credits=0)
    broker.tick()
    assert broker.fleet.sleep_ms(broker.now_ms) == broker.rules.stats_every_ms
    broker.passes(1_000 + broker.rules.workers_every_ms, gpu)
    assert broker.fleet.sleep_ms(broker.now_ms) == broker.rules.turn_ms
    assert broker.fleet.sleep_ms(broker.now_ms + 3_600_000) == 0


def test_a_lost_worker_stays_on_the_page_for_a_while_and_is_then_forgotten(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.passes(broker.rules.lease_ms)
    broker.passes(10 * 60_000 - 1)
    assert [view.state for view in broker.fleet.workers()] == ["lost"]
    broker.passes(1)
    assert not broker.fleet.workers() and isinstance(broker.published[-1], WorkerGone)


def test_a_worker_lost_again_is_remembered_from_then_on(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    broker.passes(broker.rules.lease_ms)
    broker.passes(9 * 60_000)
    gpu.announces()
    broker.passes(broker.rules.lease_ms)
    broker.passes(9 * 60_000)
    assert [view.worker for view in broker.fleet.workers()] == ["gpu-0"]


def test_a_worker_that_announces_all_the_time_costs_no_more_than_one_that_does_not(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    for _ in range(2_000):
        broker.now_ms += 10
        gpu.announces()
        broker.tick()
    deadlines = broker.fleet.leases.deadlines
    assert len(deadlines._due_ms) <= 2 and len(deadlines._heap) <= 2 * broker.rules.lease_ms // 10
    broker.passes(2 * broker.rules.lease_ms)
    assert len(deadlines._heap) <= 2


# ---- placement


def test_nothing_is_handed_out_before_everything_that_arrived_was_heard(broker: Given) -> None:
    broker.joined("gpu-0")
    broker.submitted(1, priority=0)
    broker.submitted(2, priority=9)
    step = broker.tick()
    (sent,) = [send.message for send in step.sends]
    assert sent.job_id == job_id(2)


def test_work_is_spread_before_it_is_piled_up(broker: Given) -> None:
    fleet = [broker.joined(f"gpu-{number}", credits=2) for number in range(3)]
    for number in range(3):
        broker.submitted(number + 1)
    broker.tick()
    assert [len(gpu.dispatched) for gpu in fleet] == [1, 1, 1]


def test_a_head_that_nobody_can_run_does_not_hold_up_the_others(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    broker.submitted(1, priority=100, needs=dataclasses.replace(NEEDS, nodes=("Missing",)))
    job = broker.submitted(2)
    broker.tick()
    assert gpu.dispatched == [(job, 1)]


def test_priority_and_age_hold_across_what_jobs_need(broker: Given) -> None:
    large = dataclasses.replace(NEEDS, vram_bytes=1 << 30)
    for number, (priority, needs) in enumerate([(0, NEEDS), (0, large), (1, NEEDS), (1, large), (0, NEEDS)], start=1):
        broker.submitted(number, priority=priority, needs=needs)
    gpu = broker.joined("gpu-0", credits=5)
    broker.tick()
    assert [job for job, _ in gpu.dispatched] == [job_id(n) for n in (3, 4, 1, 2, 5)]


def test_each_job_goes_to_a_card_that_can_hold_it(broker: Given) -> None:
    small, large = broker.joined("gpu-0", vram_bytes=8 << 30), broker.joined("gpu-1", vram_bytes=24 << 30)
    job = broker.submitted(1, needs=dataclasses.replace(NEEDS, vram_bytes=16 << 30))
    fast = broker.submitted(2, needs=dataclasses.replace(NEEDS, labels=("fast",)))
    broker.tick()
    assert large.dispatched == [(job, 1)] and not small.dispatched
    assert broker.joined("gpu-2", labels=("fast", "new")).state == "ready"
    broker.tick()
    assert broker.records[fast].worker == "gpu-2"


def test_a_job_goes_back_to_where_it_failed_rather_than_wait_for_ever(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.fails(job, Reason.OUT_OF_MEMORY)
    gpu.has_room()
    broker.passes(250)
    assert gpu.dispatched == [(job, 1), (job, 2)]


def test_a_liar_with_room_for_everything_gets_what_a_heartbeat_can_name(broker: Given) -> None:
    liar = broker.joined("gpu-0", credits=0)
    for number in range(1, 201):
        broker.submitted(number)
    liar.has_room(2**31, seen=2**53)
    for _ in range(3):
        broker.tick()
    assert len(liar.dispatched) == 64 and broker.fleet.jobs.counts[JobState.QUEUED] == 136


def test_alike_workers_are_asked_once_about_alike_jobs(broker: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Kind, GroupKey]] = []
    backlog = broker.fleet.jobs.backlog
    right = backlog._serves

    def counted(kind: Kind, group: GroupKey) -> bool:
        asked.append((kind, group))
        return right(kind, group)

    monkeypatch.setattr(backlog, "_serves", counted)
    for number in range(100):
        broker.joined(f"gpu-{number}", vram_bytes=(8 << 30) + number % 2)
    for number in range(100):
        needs = dataclasses.replace(NEEDS, nodes=("Missing",), steps=20, pixels=(1 << 20) - number)
        broker.submitted(number + 1, needs=needs)
    broker.tick()
    assert len(asked) == 2
    for number in range(100, 110):
        broker.submitted(number + 1, needs=dataclasses.replace(NEEDS, nodes=(f"Missing{number}",)))
    broker.tick()
    broker.tick()
    assert len(asked) == 2 * 11


# ---- what others see


def test_the_stream_counts_by_one_and_previews_stand_outside(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.reports(job, 1, ProgressKind.PREVIEW)
    gpu.reports(job, 2)
    gpu.completes(job)
    broker.passes(2_000, gpu)
    numbered = [message for message in broker.published if not isinstance(message, JobPreview)]
    assert [message.serial for message in numbered] == list(range(1, len(numbered) + 1))
    assert {message.stream for message in numbered} == {STREAM}
    assert {type(message) for message in numbered} >= {JobChanged, WorkerChanged, StatsChanged}


def test_counts_are_told_soon_after_a_change_and_not_while_nothing_changes(broker: Given) -> None:
    broker.submitted()
    broker.passes(broker.rules.stats_every_ms)
    (stats,) = [message.stats for message in broker.published if isinstance(message, StatsChanged)]
    assert stats.queued == 1 and stats.oldest_queued_utc_ms == broker.records[job_id(1)].created_utc_ms
    broker.passes(broker.rules.outlook_every_ms)
    told = len(broker.published)
    broker.passes(60_000)
    assert len(broker.published) == told


def test_counts_are_told_at_most_every_so_often_however_much_changes(broker: Given) -> None:
    for number in range(100):
        broker.submitted(number + 1)
        broker.passes(100)
    told = [message for message in broker.published if isinstance(message, StatsChanged)]
    assert len(told) <= 100 * 100 // broker.rules.stats_every_ms + 1


def shown(broker: Given) -> list[WorkerView]:
    """Every worker that watchers were told of, in order."""
    return [message.worker for message in broker.published if isinstance(message, WorkerChanged)]


def test_what_a_worker_holds_is_told_soon_and_once_however_often_it_changes(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    broker.passes(1_000)
    told = len(shown(broker))
    for number in (1, 2, 3):
        gpu.has_room()
        gpu.completes(broker.running(gpu, number))
    gpu.has_room()
    job = broker.running(gpu, 4)
    assert len(shown(broker)) == told
    broker.passes(broker.rules.workers_every_ms)
    (seen,) = shown(broker)[told:]
    assert (seen.state, seen.succeeded, [held.job_id for held in seen.held]) == ("busy", 3, [job])
    broker.passes(1_000)
    assert len(shown(broker)) == told + 1


def test_whether_a_worker_is_there_and_gets_work_is_told_at_once(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    assert [seen.state for seen in shown(broker)] == ["joined", "ready"]
    broker.running(gpu)
    broker.asks(client.Pause(request_id=REQUEST, worker="gpu-0"))
    assert shown(broker)[-1].paused and shown(broker)[-1].state == "busy"
    broker.asks(client.Resume(request_id=REQUEST, worker="gpu-0"))
    assert not shown(broker)[-1].paused
    gpu.says(wire.Draining())
    assert shown(broker)[-1].state == "draining"
    told = len(shown(broker))
    broker.passes(1_000)
    assert len(shown(broker)) == told  # what waited went along


def test_of_a_worker_that_has_left_nothing_waits_to_be_told(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    gpu.beats()
    gpu.says(wire.Leave(why="enough"))
    broker.passes(1_000)
    assert isinstance([m for m in broker.published if isinstance(m, (WorkerChanged, WorkerGone))][-1], WorkerGone)


def test_messages_that_broke_the_contract_are_counted_among_the_rest(broker: Given) -> None:
    broker.fleet.invalid_messages = 7
    broker.submitted()
    broker.passes(1_000)
    assert [message.stats.invalid_messages for message in broker.published if isinstance(message, StatsChanged)] == [7]


def test_counts_survive_a_restart(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=9)
    for number, state in enumerate(JobState, start=1):
        broker.in_state(state, gpu, number)
    broker.in_state(JobState.LEASED, gpu, 20)
    broker.start("6" * 32)
    stats = broker.fleet.stats(broker.now)
    counted = {state: sum(r.state is state for r in broker.records.values()) for state in JobState}
    assert counted == {state: getattr(stats, state.value) for state in JobState}


def test_a_recovered_queue_keeps_its_order(broker: Given) -> None:
    for number, priority in enumerate([0, 5, 0], start=1):
        broker.submitted(number, priority=priority)
    broker.start("6" * 32)
    gpu = broker.joined("gpu-0", credits=3)
    broker.tick()
    assert [job for job, _ in gpu.dispatched] == [job_id(2), job_id(1), job_id(3)]


def test_dispatch_serials_grow_for_the_brokers_life(broker: Given) -> None:
    gpu = broker.joined("gpu-0", credits=2)
    for number in (1, 2):
        broker.running(gpu, number)
    assert [m.serial for m in gpu.got if isinstance(m, wire.Dispatch)] == [1, 2]


def test_other_rules_are_kept_to() -> None:
    broker = Given(Rules(heartbeat_ms=500, lease_ms=2_000, accept_ms=700))
    gpu = broker.joined("gpu-0")
    job = broker.leased(gpu)
    broker.passes(699)
    assert broker.state(job) is JobState.LEASED
    broker.passes(1)
    assert broker.state(job) is JobState.QUEUED
