"""Somebody else's work on a worker, as far as it shows."""

from __future__ import annotations

import dataclasses
from typing import Any

from broker.core.estimates import LONGEST_MS
from broker.core.others import Others
from broker.core.rules import Now
from broker.protocol.records import Held, Phase, Why
from broker.protocol.worker import Heartbeat
from tests.core.broker.given import STATS, UTC_MS, Given, held, job_id
from tests.core.broker.test_placing import XL, needing, taught, where, worker

USUAL_MS = 4_000


def at(mono_ms: int) -> Now:
    return Now(mono_ms=mono_ms, utc_ms=UTC_MS + mono_ms)


def seen(others: Others, mono_ms: int, *phases: Phase, **stats: Any) -> bool:
    named = tuple(Held(job_id=job_id(n), attempt=1, phase=phase) for n, phase in enumerate(phases))
    return others.seen(Heartbeat(stats=dataclasses.replace(STATS, **stats), held=named), at(mono_ms))


def test_a_heartbeat_matters_while_there_is_work_of_others_and_when_it_seems_to_come_or_go() -> None:
    others, calm = Others(), {"gpu_busy": 0.1}
    heartbeats: list[tuple[bool, dict[str, Any]]] = [
        (False, calm), (False, calm),
        (False, {"comfy_queue": 1, **calm}), (True, {"comfy_queue": 1, **calm}), (True, {"comfy_queue": 1, **calm}),
        (True, calm), (False, calm),
        (False, {"gpu_busy": 0.9}), (True, {"gpu_busy": 0.9}), (False, {"gpu_busy": 0.9}), (True, calm), (False, calm),
    ]  # fmt: skip
    for number, (matters, stats) in enumerate(heartbeats):
        assert seen(others, number * 2_000, **stats) == matters, number
    assert others.slowed(3.0, at(30_000))
    assert seen(others, 32_000, **calm), "how slow it was is being forgotten"


def test_a_card_that_is_busy_while_its_comfyui_is_not_is_noticed_at_the_second_heartbeat() -> None:
    others = Others()
    seen(others, 0, gpu_busy=0.9)
    assert others.slowdown(at(0)) == 1, "the first one may still tell of a job"
    seen(others, 2_000, gpu_busy=0.9)
    assert others.slowdown(at(2_000)) == 2
    for stats in ({"gpu_busy": None}, {"gpu_busy": 0.9, "comfy_queue": 1}):
        seen(others, 4_000, gpu_busy=0.9)
        seen(others, 6_000, **stats)
        assert others.slowdown(at(6_000)) == 1


def test_prompts_of_others_are_those_that_the_same_heartbeat_does_not_name() -> None:
    others = Others()
    for mono_ms in (0, 2_000):
        seen(others, mono_ms, Phase.RUNNING, Phase.STAGED, Phase.FINISHING, Phase.STAGING, comfy_queue=4)
    assert others.prompts == 2
    seen(others, 4_000, Phase.RUNNING, Phase.STAGED, comfy_queue=2)
    assert others.prompts == 0
    seen(others, 6_000, Phase.STAGED, comfy_queue=2)
    assert others.prompts == 0, "what is in one heartbeat alone may be ours, and over"


def test_prompts_of_others_take_what_is_usual_and_what_takes_longer_takes_longer_still() -> None:
    others = Others()
    for mono_ms in (0, 2_000):
        seen(others, mono_ms, comfy_queue=3)
    wait_ms = [others.wait_ms(3, USUAL_MS, at(2_000 + gone_ms)) for gone_ms in (0, 3_000, 4_000, 24_000)]
    assert wait_ms == [12_000, 9_000, 8_000, 18_000]
    assert others.wait_ms(1, USUAL_MS, at(26_000)) == 10_000
    assert others.wait_ms(0, USUAL_MS, at(26_000)) == 0


def test_the_first_prompt_of_others_begins_when_the_one_before_it_is_over() -> None:
    others = Others()
    for mono_ms in (0, 2_000):
        seen(others, mono_ms, comfy_queue=3)
    seen(others, 60_000, comfy_queue=5)
    assert others.wait_ms(1, USUAL_MS, at(60_000)) == 27_000, "those posted later change nothing for it"
    seen(others, 62_000, comfy_queue=2)
    assert others.wait_ms(1, USUAL_MS, at(62_000)) == USUAL_MS
    seen(others, 90_000, Phase.RUNNING, comfy_queue=3)
    assert others.wait_ms(1, USUAL_MS, at(90_000)) == USUAL_MS, "one of ours runs"


def test_no_claim_of_a_queue_makes_a_wait_that_cannot_be_told() -> None:
    others = Others()
    for mono_ms in (0, 2_000):
        seen(others, mono_ms, comfy_queue=2**31)
    assert others.wait_ms(others.prompts, LONGEST_MS, at(2_000)) == LONGEST_MS


# ---- what is done about it


def test_prompts_of_others_are_a_wait_and_make_no_run_longer(broker: Given) -> None:
    """A job that is long even on the fast card does not go to a slow one because of some that are quickly done."""
    fast, slow = worker(broker, "fast"), worker(broker, "slow")
    taught(broker, fast, 100, XL, run_ms=4_000)
    taught(broker, slow, 200, XL, run_ms=20_000)
    long = dataclasses.replace(needing(XL), pixels=100, steps=1)
    for _ in range(2):
        fast.beats(comfy_queue=19)
    job = broker.submitted(1, needs=long)
    broker.tick()
    assert where(broker, job) == "fast"
    decision = broker.story[job][-1].decision
    assert decision is not None
    told = {one.worker: (one.wait_ms, one.run_ms) for one in decision.candidates}
    assert told["fast"][0] >= 19 * 4_000 and told["slow"][0] == 0
    assert 390_000 < told["fast"][1] < 410_000


def test_a_job_behind_a_prompt_of_others_that_does_not_end_goes_elsewhere_at_no_cost(broker: Given) -> None:
    fast, slow = worker(broker, "fast", credits=2), worker(broker, "slow")
    taught(broker, fast, 100, XL, run_ms=4_000)
    taught(broker, slow, 200, XL, run_ms=20_000)
    job = broker.submitted(1, needs=needing(XL))
    broker.tick()
    fast.accepts(job)
    assert where(broker, job) == "fast"
    beats = 0
    while where(broker, job) == "fast" and beats < 120:
        beats += 1
        broker.now_ms += broker.rules.turn_ms
        fast.beats(held(job, phase=Phase.STAGED), comfy_queue=2)
        slow.beats(gpu_busy=0.0)
        broker.tick()
    assert where(broker, job) == "slow" and beats > 12, "not before it takes longer than is usual there"
    assert (broker.records[job].why, broker.records[job].attempt, broker.records[job].burnt) == (Why.MOVED, 2, 0)


def test_a_job_before_prompts_of_others_is_left_where_it_is(broker: Given) -> None:
    one, other = worker(broker, "gpu-1"), worker(broker, "gpu-2")
    taught(broker, one, 100, XL)
    taught(broker, other, 200, XL)
    job = broker.submitted(1, needs=needing(XL))
    broker.tick()
    holder = one if where(broker, job) == "gpu-1" else other
    holder.accepts(job)
    holder.beats(held(job, phase=Phase.STAGED), comfy_queue=1)
    for _ in range(60):
        broker.now_ms += broker.rules.turn_ms
        holder.beats(held(job, phase=Phase.STAGED), comfy_queue=9)
        broker.tick()
    assert (where(broker, job), broker.records[job].attempt) == (holder.name, 1)
