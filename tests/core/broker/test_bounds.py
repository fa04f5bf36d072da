"""What a worker that lives may not do for ever: take a name from another, or hold an attempt and never end it."""

from __future__ import annotations

import pytest

from broker.core.hearing import CONTESTED
from broker.core.leases import GRACE_MS
from broker.core.roster import CONTEST_MS, CONTESTS
from broker.core.rules import Rules
from broker.protocol import worker as wire
from broker.protocol.records import Held, JobState, Phase, Reason, WorkerView
from tests.core.broker.given import Given, Session, held

# ---- two processes with one name


def swap(broker: Given, newcomer: Session, incumbent: Session) -> None:
    """The newcomer takes the name, and the other, which lives, says a last word."""
    newcomer.announces()
    assert isinstance(newcomer.last, wire.Welcome) and newcomer.session in broker.fleet.roster.by_session
    incumbent.says(wire.Leave(why="refused"))


def seen(broker: Given) -> WorkerView:
    [worker] = broker.fleet.workers()
    return worker


def test_living_processes_take_a_name_from_one_another_only_so_often(broker: Given) -> None:
    first = broker.joined("gpu-0")
    for number in range(10, 10 + CONTESTS):
        newcomer = broker.worker("gpu-0", number)
        swap(broker, newcomer, first)
        first = newcomer
    late = broker.worker("gpu-0", 20)
    late.announces()
    assert late.last == wire.Refused(why=CONTESTED.format("gpu-0"), retry=True)
    assert first.session in broker.fleet.roster.by_session and first.last != late.last
    assert seen(broker).contested, "watchers are told"
    broker.passes(broker.rules.lease_ms)
    late.announces()
    assert isinstance(late.last, wire.Welcome), "the one that had it is gone"


def test_a_worker_that_crashes_and_is_started_again_is_let_in_each_time(broker: Given) -> None:
    for number in range(10, 20):
        again = broker.worker("gpu-0", number)
        again.announces()
        assert isinstance(again.last, wire.Welcome)


def test_a_name_is_taken_again_once_the_quarrel_is_old(broker: Given) -> None:
    first = broker.joined("gpu-0")
    for number in range(10, 10 + CONTESTS):
        newcomer = broker.worker("gpu-0", number)
        swap(broker, newcomer, first)
        first = newcomer
    assert seen(broker).contested
    broker.passes(CONTEST_MS + broker.rules.heartbeat_ms, first)
    assert not seen(broker).contested
    late = broker.worker("gpu-0", 20)
    late.announces()
    assert isinstance(late.last, wire.Welcome)


# ---- a worker that beats and never ends anything


def beat_until(broker: Given, gpu: Session, held_as: Held, end_ms: int) -> None:
    while broker.now_ms < end_ms:
        broker.now_ms = min(end_ms, broker.now_ms + broker.rules.turn_ms)
        gpu.beats(held_as)
        broker.tick()


@pytest.mark.parametrize(
    ("phase", "limit_ms", "reason"),
    [
        (Phase.RUNNING, 30 * 60_000, Reason.TIMEOUT),
        (Phase.STAGED, 35 * 60_000, Reason.NOT_ACCEPTED),
    ],
)
def test_each_part_of_an_attempt_has_its_limit(broker: Given, phase: Phase, limit_ms: int, reason: Reason) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    gpu.beats(held(job, phase=phase))
    broker.tick()
    end_ms = broker.now_ms + limit_ms + GRACE_MS
    beat_until(broker, gpu, held(job, phase=phase), end_ms - 1)
    assert broker.state(job) is JobState.RUNNING
    beat_until(broker, gpu, held(job, phase=phase), end_ms + 2_000)
    failure = broker.records[job].failure
    assert failure is not None and failure.reason is reason and "for too long" in failure.text
    assert any(isinstance(message, wire.Abandon) for message in gpu.got[-3:])


def test_a_prompt_of_others_before_an_attempt_has_as_much_time_as_one_of_ours() -> None:
    broker = Given(Rules(start_to_close_ms=60_000, stall_ms=30_000))
    gpu = broker.joined("gpu-0")
    for _ in range(2):
        gpu.beats(comfy_queue=1)
    job = broker.leased(gpu)
    gpu.accepts(job)
    limit_ms = 2 * 90_000 + GRACE_MS
    for end_ms, burnt in ((limit_ms - 1, 0), (limit_ms + 2_000, 1)):
        beat_until(broker, gpu, held(job, phase=Phase.STAGED), end_ms)
        assert broker.records[job].burnt == burnt


def test_outputs_that_wait_for_a_full_disk_outlast_the_limit_of_a_run(broker: Given) -> None:
    gpu = broker.joined("gpu-0")
    job = broker.running(gpu)
    beat_until(broker, gpu, held(job, phase=Phase.FINISHING), 2 * broker.rules.start_to_close_ms)
    assert broker.state(job) is JobState.RUNNING
