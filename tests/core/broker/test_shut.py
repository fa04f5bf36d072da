"""Nobody waits for a worker that gives no room though nothing keeps its card busy."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.rooms import SMALL
from broker.protocol.records import JobState, Phase
from tests.core.broker.given import NEEDS, Given, Session, held
from tests.core.broker.test_placing import ran_each, where, worker

PICTURE = dataclasses.replace(NEEDS, pixels=1 << 20, steps=20)
SLOW_MS = 600_000


def fast_and_slow(broker: Given, *, credits: int = 1) -> tuple[Session, Session]:
    """Ten times as fast as the other, which has room; and down."""
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, SLOW_MS // 10))
    ran_each(broker, PICTURE, (slow, SLOW_MS), number=200)
    slow.has_room(credits)
    fast.has_room(0)
    fast.beats(comfy_fault="no answer")
    return fast, slow


@pytest.mark.parametrize("queued", [0, 1])
def test_a_job_does_not_wait_for_a_worker_whose_comfyui_is_down(queued: int, broker: Given) -> None:
    """queued: what its ComfyUI had in its queue when it was last heard."""
    fast, _ = fast_and_slow(broker)
    for _ in range(2):
        broker.now_ms += 1_000
        fast.beats(comfy_fault="no answer", comfy_queue=queued)
    job = broker.submitted(1, needs=PICTURE)
    broker.tick()
    assert where(broker, job) == "slow"


def test_a_job_is_not_taken_back_for_a_worker_whose_comfyui_is_down(broker: Given) -> None:
    fast, slow = fast_and_slow(broker, credits=2)
    first, second = (broker.submitted(number, needs=PICTURE) for number in (1, 2))
    broker.tick()
    slow.accepts(second)
    for _ in range(3):
        broker.now_ms += 1_000
        fast.beats(comfy_fault="no answer")
        slow.beats(held(first), held(second, phase=Phase.STAGED))
        broker.tick()
    assert broker.state(second) is JobState.RUNNING and where(broker, second) == "slow"
    fast.beats()
    fast.has_room()
    broker.now_ms += 1_000
    broker.tick()
    assert where(broker, second) == "fast", "it is up again"


def test_among_many_those_that_are_down_hide_nobody_who_is_waited_for(broker: Given) -> None:
    down = [worker(broker, f"down-{number}") for number in range(SMALL)]
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    ran_each(broker, PICTURE, (fast, SLOW_MS // 10))
    ran_each(broker, PICTURE, (slow, SLOW_MS), number=200)
    for one in down:
        one.has_room(0)
    first = broker.submitted(1, needs=PICTURE, pin="fast")
    broker.tick()
    fast.accepts(first)
    job = broker.submitted(2, needs=PICTURE)
    broker.tick()
    assert broker.state(job) is JobState.QUEUED, "the fast one is waited for"
    (group,) = broker.fleet.jobs.backlog._groups.values()
    assert group.wait is not None and (group.wait.worker, group.wait.instead) == ("fast", "slow")
