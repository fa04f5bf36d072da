"""Workers as the broker knows them: what they may become, can run, and have room for."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from broker.core.backlog import GroupKey
from broker.core.jobs import Job
from broker.core.model import WORKER_MOVES
from broker.core.roster import HELD_MOST, Roster, Worker
from broker.core.rules import Now
from broker.protocol.records import Gpu, Held, JobState, Phase, WorkerState
from broker.protocol.worker import Announce, Capabilities, Heartbeat, Ready
from tests.core.broker.given import DIGEST, STATS, UTC_MS, job_id, record, session_id

PAIRS = list(itertools.product(WorkerState, WorkerState))
ILLEGAL = [(a, b) for a, b in PAIRS if b not in WORKER_MOVES[a]]
NOW = Now(mono_ms=0, utc_ms=UTC_MS)
GROUP = GroupKey(
    nodes=("KSampler",), models=("checkpoints/xl.safetensors",), labels=(), vram_bytes=0, pin="", owner="ann", work=1
)


def worker(number: int = 1, **facts: Any) -> Worker:
    gpu = Gpu(name="card", kind="cuda", vram_total_bytes=facts.pop("vram_bytes", 8 << 30))
    said = Announce(
        worker=f"gpu-{number}", session=session_id(number), version="1", comfyui_version="0.3.64", simulated=True,
        capabilities=DIGEST, gpu=gpu, labels=(), restartable=False, held=(),
    )  # fmt: skip
    return Worker(dataclasses.replace(said, **facts), UTC_MS)


def roster_of(*workers: Worker) -> Roster:
    roster = Roster()
    for one in workers:
        roster.join(one)
    return roster


def offer(digest: str = DIGEST, nodes: tuple[str, ...] = GROUP.nodes, models: tuple[str, ...] = GROUP.models) -> Any:
    return Capabilities(digest=digest, nodes=nodes, models=models)


def held(number: int, serial: int = 0) -> Job:
    return Job(record(number, state=JobState.LEASED, attempt=1), dispatch_serial=serial, phase=Phase.STAGED)


def test_the_table_knows_every_state() -> None:
    assert WORKER_MOVES.keys() == set(WorkerState)
    back = {before for before, after in WORKER_MOVES.items() if WorkerState.JOINED in after}
    assert back == {WorkerState.LOST, WorkerState.LEFT}


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_a_move_that_is_not_in_the_table_changes_nothing(before: WorkerState, after: WorkerState) -> None:
    one = worker()
    one.state = before
    assert not one.move(after)
    assert one.state is before


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair not in ILLEGAL])
def test_a_move_in_the_table_is_taken(before: WorkerState, after: WorkerState) -> None:
    one = worker()
    one.state = before
    assert one.move(after)
    assert one.state is after


def test_there_is_no_room_before_it_is_offered_nor_while_draining() -> None:
    one = worker()
    assert one.room() == 0
    one.ready = Ready(serial=1, credits=2, seen=0)
    assert one.room() == 2
    one.move(WorkerState.DRAINING)
    assert one.room() == 0


def test_room_counts_down_by_what_was_sent_after_the_worker_looked() -> None:
    one = worker()
    one.jobs = {job_id(n): held(n, serial=n) for n in (4, 5)}
    one.ready = Ready(serial=1, credits=2, seen=4)
    assert one.room() == 1
    one.ready = Ready(serial=2, credits=1, seen=5)
    assert one.room() == 1


@pytest.mark.parametrize(("credits", "seen"), [(2**31, 0), (1, 2**53)])
def test_no_claim_of_room_gets_a_worker_more_than_a_heartbeat_can_name(credits: int, seen: int) -> None:
    one = worker()
    one.ready = Ready(serial=1, credits=credits, seen=seen)
    dispatched = 0
    while one.room() > 0:
        dispatched += 1
        one.jobs[job_id(dispatched)] = held(dispatched, serial=dispatched)
    assert dispatched == HELD_MOST


def test_who_may_work_leaves_out_the_paused_the_draining_and_the_gone() -> None:
    here, paused, draining, lost = (worker(n) for n in range(4))
    roster = roster_of(here, paused, draining, lost)
    roster.paused.add(paused.name)
    draining.move(WorkerState.DRAINING)
    del roster.by_session[lost.session]
    assert [one.name for one in (here, paused, draining, lost) if roster.may_work(one)] == [here.name]


def test_only_prompts_of_others_that_were_there_before_an_attempt_go_before_it() -> None:
    one, job = worker(), held(1)
    one.jobs[job_id(1)] = job
    one.beat(Heartbeat(stats=STATS, held=()), NOW)
    assert one.goes_behind(job) == 0
    for comfy_queue, behind in ((3, 0), (3, 2), (2, 1), (6, 1), (1, 0), (9, 0)):
        stats = dataclasses.replace(STATS, comfy_queue=comfy_queue)
        one.beat(Heartbeat(stats=stats, held=(Held(job_id=job_id(1), attempt=1, phase=Phase.STAGED),)), NOW)
        assert one.goes_behind(job) == behind


def test_a_worker_holds_the_models_of_its_last_prompt_until_its_comfyui_dies() -> None:
    one = worker()
    one.holds(("a", "b"), len)
    one.holds(("c",), len)
    assert one.resident == ("c",) and one.sets == (("c",), ("a", "b"))
    one.beat(Heartbeat(stats=dataclasses.replace(STATS, comfy_fault="gone"), held=()), NOW)
    assert (len(one.resident), len(one.sets)) == (0, 0)


@pytest.mark.parametrize(
    ("lacking", "facts"),
    [
        ({"nodes": ("KSampler", "Missing")}, {}),
        ({"models": ("checkpoints/other.safetensors",)}, {}),
        ({"labels": ("fast",)}, {"labels": ("slow",)}),
        ({"vram_bytes": 24 << 30}, {"vram_bytes": 8 << 30}),
    ],
)
def test_a_worker_that_lacks_one_thing_cannot_run_the_job(lacking: dict[str, Any], facts: dict[str, Any]) -> None:
    one = worker(**facts)
    roster = roster_of(one)
    roster.learn(offer())
    assert roster.serves(one.kind, GROUP)
    assert not roster.serves(one.kind, GROUP._replace(**lacking))


def test_a_worker_whose_capabilities_are_not_known_can_run_nothing_until_they_are() -> None:
    one = worker()
    roster = roster_of(one)
    assert roster.wants(DIGEST) and not roster.serves(one.kind, GROUP)
    roster.learn(offer())
    assert not roster.wants(DIGEST) and roster.serves(one.kind, GROUP)


def test_a_worker_whose_comfyui_never_answered_can_run_nothing_and_is_not_asked_why() -> None:
    alone = worker(1, capabilities=None)
    roster = roster_of(alone)
    assert not roster.wants(None) and not roster.serves(alone.kind, GROUP) and roster.documents() == frozenset()
    assert roster.why_not(GROUP) == "", "it may come to serve"
    roster.join(worker(2))
    roster.learn(offer(models=()))
    assert "lacks the model" in roster.why_not(GROUP), "the one that is whole tells what is wrong"
    assert roster.why_not(GROUP._replace(pin=alone.name)) == ""


def test_capabilities_told_again_replace_what_was_thought() -> None:
    one = worker()
    roster = roster_of(one)
    roster.learn(offer(models=()))
    assert not roster.serves(one.kind, GROUP)
    roster.learn(offer())
    assert roster.serves(one.kind, GROUP)


def test_capabilities_that_nobody_names_any_more_are_forgotten() -> None:
    old, new = worker(1, capabilities="0" * 64), worker(2, capabilities="1" * 64)
    roster = roster_of(old)
    roster.learn(offer("0" * 64))
    roster.part(old)
    roster.join(new)
    roster.learn(offer("1" * 64))
    assert roster.wants("0" * 64) and not roster.wants("1" * 64)


def test_what_is_remembered_of_groups_and_old_sessions_is_bounded() -> None:
    one = worker()
    roster = roster_of(one)
    roster.learn(offer())
    for number in range(50_010):
        roster.serves(one.kind, GROUP._replace(vram_bytes=number))
    assert len(roster._serves) <= 50_001
    for number in range(10_010):
        roster.retire(session_id(number), "gpu-1")
    assert len(roster.retired) == 10_000 and session_id(10_009) in roster.retired


def test_a_view_names_what_is_held_once_its_worker_has_told_how_far_it_is() -> None:
    one = worker()
    roster = roster_of(one)
    one.jobs = {job_id(1): held(1), job_id(2): Job(record(2, state=JobState.LEASED, attempt=1))}
    assert [h.job_id for h in roster.view(one).held] == [job_id(1)]
    roster.paused.add(one.name)
    assert roster.view(one).paused
