"""The probe, and when ComfyUI is started anew."""

from __future__ import annotations

import pytest

from broker.protocol.records import Reason
from broker.protocol.worker import Complete, Fail, Heartbeat, Probe, Probed, Ready, Recorded, Restart
from comfyui.messages import ExecutionError
from comfyui.replies import Finished, Outcome
from tests.core.worker.world import World, dispatch, entry
from worker.core.asks import Look, RestartComfy
from worker.core.mending import GRACE_MS

PATIENCE_MS = 60_000


@pytest.fixture
def world() -> World:
    joined = World()
    joined.join()
    return joined


@pytest.fixture
def mendable() -> World:
    joined = World(restartable=True)
    joined.join()
    return joined


def probed(world: World) -> Probed:
    (answer,) = world.all(Probed)
    assert isinstance(answer, Probed)
    return answer


def room(world: World) -> int:
    ready: Ready = world.all(Ready)[-1]
    return ready.credits


def restarts(world: World) -> list[str]:
    return [call.why for call in world.calls if isinstance(call, RestartComfy)]


# ---- the probe


def test_a_probe_runs_and_only_its_success_is_told(world: World) -> None:
    world.tell_machine(Probe(serial=7))
    world.work()
    world.tick(2_000)
    assert world.all(Heartbeat)[-1].held == () and room(world) == 1
    world.run_prompt()
    assert probed(world) == Probed(serial=7, passed=True, why="")
    assert not world.all(Complete) and not world.carried and not world.machine.runs and room(world) == 2


def test_two_probes_are_two_prompts(world: World) -> None:
    for serial in (1, 2):
        world.tell_machine(Probe(serial=serial))
        world.work()
        world.run_prompt()
        world.tick(5)
    assert [answer.passed for answer in world.all(Probed)] == [True, True]
    assert len(world.comfy.begun) == 2


def test_a_probe_that_fails_says_why(world: World) -> None:
    world.tell_machine(Probe(serial=7))
    world.work()
    world.run_prompt(Outcome.ERROR)
    assert not probed(world).passed and probed(world).why.startswith("node_error: ")
    assert not world.all(Fail)


def test_a_second_word_while_one_is_under_way_is_answered_with_it(world: World) -> None:
    world.tell_machine(Probe(serial=7))
    world.tell_machine(Probe(serial=8))
    world.work()
    world.run_prompt()
    assert probed(world).serial == 8


def test_a_comfyui_that_is_away_is_not_probed(world: World) -> None:
    world.fall()
    world.tell_machine(Probe(serial=7))
    assert probed(world) == Probed(serial=7, passed=False, why="its ComfyUI does not answer")


def poison(world: World, number: int = 1) -> None:
    """A job fails so that its card's process is known to be broken."""
    said = dispatch(number)
    world.tell_machine(said)
    world.work()
    world.comfy.begin()
    (run,) = world.machine.runs.values()
    why = ExecutionError(run.prompt_id, "1", "KSampler", "RuntimeError", "CUDA error: an illegal memory access", ())
    found = Finished(entry(run.prompt_id, Outcome.ERROR, failure=why, files=()))
    world.comfy.finish(Outcome.ERROR)
    world.comfy.events.clear()
    world.act(world.machine.looked((said.job_id, 1), found, world.now_ms))
    world.tell_machine(Recorded(job_id=said.job_id, attempt=1))


def test_a_probe_that_succeeds_lifts_the_ban_of_a_broken_card(world: World) -> None:
    poison(world)
    assert world.all(Fail)[-1].failure.reason is Reason.POISONED and room(world) == 0
    world.tell_machine(Probe(serial=1))
    world.work()
    world.run_prompt()
    assert probed(world).passed and room(world) == 2


# ---- a frozen ComfyUI


def test_one_that_answers_nothing_gets_no_work_until_it_does(world: World) -> None:
    world.act(world.machine.comfy_answers(False, world.now_ms))
    assert room(world) == 0
    world.act(world.machine.comfy_answers(True, world.now_ms))
    assert room(world) == 2


# ---- starting it anew


def test_a_broken_card_is_mended_once_nothing_else_runs(mendable: World) -> None:
    poison(mendable)
    mendable.tick()
    assert restarts(mendable) == ["its card fails everything: RuntimeError: CUDA error: an illegal memory access"]
    mendable.tick(GRACE_MS)
    assert len(restarts(mendable)) == 1


def test_without_a_command_nothing_is_started_anew(world: World) -> None:
    poison(world)
    world.fall()
    world.tick(PATIENCE_MS)
    assert not restarts(world)


def test_one_that_is_away_for_long_is_started_anew_and_again(mendable: World) -> None:
    mendable.fall()
    mendable.tick(PATIENCE_MS - 1)
    assert not restarts(mendable)
    mendable.tick(1)
    assert restarts(mendable) == ["it has not answered for 60 s"]
    assert mendable.machine.deadline_ms() is not None
    mendable.tick(PATIENCE_MS)
    assert len(restarts(mendable)) == 2


def test_one_that_comes_back_in_time_is_left_alone(mendable: World) -> None:
    mendable.fall()
    mendable.tick(PATIENCE_MS - 1)
    mendable.rise()
    mendable.tick(PATIENCE_MS)
    assert not restarts(mendable)


def test_a_frozen_one_that_works_is_left_to_the_limits(mendable: World) -> None:
    mendable.tell_machine(dispatch(1))
    mendable.work()
    mendable.comfy.begin()
    while mendable.comfy.events:
        mendable.hear()
    mendable.act(mendable.machine.comfy_answers(False, mendable.now_ms))
    mendable.tick(PATIENCE_MS)
    assert not restarts(mendable)


def test_two_restarts_lie_apart_unless_a_person_asks(mendable: World) -> None:
    poison(mendable)
    mendable.tick()
    mendable.fall()
    mendable.rise()
    mendable.calls.clear()
    mendable.work()
    poison(mendable, 2)
    mendable.tick(GRACE_MS)
    assert not restarts(mendable)
    mendable.tick(PATIENCE_MS)
    assert len(restarts(mendable)) == 1
    mendable.tell_machine(Restart(why="asked"))
    mendable.tick()
    assert restarts(mendable)[1:] == ["asked"]


def test_a_person_who_asks_gets_attempts_handed_back_first(mendable: World) -> None:
    for number in (1, 2):
        mendable.tell_machine(dispatch(number))
        mendable.work()
    mendable.comfy.begin()
    while mendable.comfy.events:
        mendable.hear()
    mendable.tell_machine(Restart(why="asked"))
    mendable.tick()
    assert not restarts(mendable) and room(mendable) == 0
    mendable.comfy.finish(Outcome.INTERRUPTED)
    while not restarts(mendable):
        mendable.tick(1_000)
        while mendable.calls and not restarts(mendable):
            mendable.call()
    assert restarts(mendable) == ["asked"]
    assert {fail.failure.reason for fail in mendable.all(Fail)} == {Reason.DRAINING}
    assert not any(isinstance(call, Look) for call in mendable.calls)


def test_a_prompt_that_does_not_go_keeps_it_waiting_for_so_long_only(mendable: World) -> None:
    mendable.tell_machine(dispatch(1))
    mendable.work()
    mendable.comfy.begin()
    while mendable.comfy.events:
        mendable.hear()
    mendable.tell_machine(Restart(why="asked"))
    mendable.tick(GRACE_MS - 1)
    assert not restarts(mendable)
    mendable.tick(1)
    assert restarts(mendable) == ["asked"]
