"""The worker as a whole, without I/O: room, routing, surveys, reconnects."""

from __future__ import annotations

import pytest

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Reason, Resume
from broker.protocol.worker import (
    Abandon,
    Accepted,
    Announce,
    CancelAttempt,
    Complete,
    Drain,
    Fail,
    Heartbeat,
    Leave,
    ProgressReport,
    Ready,
    Recorded,
)
from comfyui import messages
from comfyui.messages import ExecutionError
from comfyui.replies import Finished, Outcome, QueueItem
from tests.core.worker.world import BROKER, LIMITS, SESSION, ComfyModel, World, dispatch, entry, welcome
from worker.core.asks import Interrupt, Stop, Submit
from worker.core.machine import DELIVERING_MOST, HELD_MOST, SURVEY_AGAIN_MS


@pytest.fixture
def world() -> World:
    joined = World()
    joined.join()
    return joined


def credits(world: World) -> int:
    ready: Ready = world.all(Ready)[-1]
    return ready.credits


def give(world: World, serial: int) -> tuple[str, int]:
    said = dispatch(serial)
    world.tell_machine(said)
    world.work()
    return said.job_id, said.attempt


def test_no_room_is_offered_before_comfyuis_queue_was_searched() -> None:
    world = World()
    world.rise()
    world.tell_machine(welcome())
    assert not world.all(Ready) or credits(world) == 0
    world.tick()
    world.call(answered=False)
    assert credits(world) == 0
    world.tick(SURVEY_AGAIN_MS)
    world.call()
    assert credits(world) == 2


def test_a_comfyui_that_never_answered_is_not_asked_anything_and_gets_no_work_until_it_does() -> None:
    world = World()
    world.fall()
    world.tell_machine(welcome())
    world.tick(SURVEY_AGAIN_MS)
    assert not world.calls and credits(world) == 0
    assert [said.capabilities for said in world.all(Announce)] == [None] and world.all(Heartbeat)
    world.join()
    assert world.all(Announce)[-1].capabilities is not None and credits(world) == 2


def test_one_runs_and_one_waits_behind_it(world: World) -> None:
    assert credits(world) == 2
    give(world, 1)
    assert credits(world) == 1
    give(world, 2)
    assert credits(world) == 0
    world.run_prompt()
    assert credits(world) == 1 and len(world.all(Complete)) == 1


def test_nothing_is_staged_in_front_of_a_server_that_interrupts_whatever_runs() -> None:
    world = World()
    world.rise(targeted_interrupt=False)
    world.tell_machine(welcome())
    world.work()
    assert credits(world) == 1
    give(world, 1)
    assert credits(world) == 0


def test_a_dispatch_without_room_is_ignored(world: World) -> None:
    for serial in (1, 2, 3):
        give(world, serial)
    assert len(world.machine.runs) == 2
    assert world.all(Ready)[-1].seen == 3


def test_a_dispatch_to_a_session_that_is_not_welcome_is_ignored() -> None:
    world = World()
    world.rise()
    world.tell_machine(dispatch(1))
    assert not world.machine.runs


def test_outputs_on_their_way_leave_room_for_the_next_up_to_a_bound(world: World) -> None:
    for serial in range(1, 2 + DELIVERING_MOST + 1):
        world.tell_machine(dispatch(serial))
        world.call()
        world.comfy.begin()
        world.comfy.finish(Outcome.SUCCESS)
        while world.comfy.events:
            world.hear()
        world.call()
    assert len(world.carried) == 2 + DELIVERING_MOST and credits(world) == 0
    world.work()
    assert credits(world) == 2


def test_ends_that_nobody_records_bound_what_is_held(world: World) -> None:
    for serial in range(1, HELD_MOST + 10):
        if credits(world):
            give(world, serial)
            world.run_prompt()
    assert credits(world) == 0
    assert len(world.machine.runs) == HELD_MOST
    world.tick(2_000)
    assert len(world.all(Heartbeat)[-1].held) == HELD_MOST


def test_a_repeated_dispatch_is_answered_with_what_is_known(world: World) -> None:
    key = give(world, 1)
    world.tell_machine(dispatch(1))
    assert len(world.all(Accepted, key)) == 2
    world.run_prompt()
    world.tell_machine(dispatch(1))
    assert len(world.all(Complete, key)) == 2
    assert world.comfy.begun[prompt_id_for(*key)] == 1


def test_events_go_to_the_attempt_they_are_about(world: World) -> None:
    first, second = give(world, 1), give(world, 2)
    world.comfy.begin()
    while world.comfy.events:
        world.hear()
    of_others = (
        messages.Status(2, None),
        messages.Unknown("x"),
        messages.FeatureFlags(True, None),
        messages.Progress("somebody else's", "1", 1, 2),
    )
    world.act(world.machine.heard(of_others, world.now_ms))
    world.tick(1_000)
    world.tick(1_000)
    before = len(world.all(ProgressReport))
    world.act(world.machine.heard([messages.Preview(None, None, "image/jpeg", b"x")], world.now_ms))
    world.act(world.machine.heard([messages.ProgressText("1", "hello")], world.now_ms))
    assert len(world.all(ProgressReport)) == before + 2
    assert world.all(ProgressReport, second) == []
    assert world.all(ProgressReport, first)[-1].progress.text == "hello"


def test_words_about_no_prompt_while_none_runs_are_nobodys(world: World) -> None:
    give(world, 1)
    assert world.machine.heard([messages.ProgressText("1", "x")], world.now_ms) == []


def test_a_poisoned_card_gets_no_more_until_comfyui_is_started_anew(world: World) -> None:
    key = give(world, 1)
    world.comfy.begin()
    prompt_id = prompt_id_for(*key)
    failure = ExecutionError(prompt_id, "1", "X", "RuntimeError", "CUDA error: an illegal memory access", ())
    world.act(world.machine.looked(key, Finished(entry(prompt_id, Outcome.ERROR, failure=failure)), world.now_ms))
    assert world.all(Fail, key)[0].failure.reason is Reason.POISONED
    world.tell_machine(Recorded(job_id=key[0], attempt=1))
    world.rise()
    assert credits(world) == 0
    world.fall()
    world.rise()
    world.work()
    assert credits(world) == 2


def test_a_prompt_that_will_not_leave_stops_the_work(world: World) -> None:
    key = give(world, 1)
    world.comfy.begin()
    world.hear()
    world.tell_machine(Abandon(job_id=key[0], attempt=1, why="x"))
    assert credits(world) == 0
    world.work()
    world.run_prompt()
    assert credits(world) == 2 and not world.machine.runs


def test_a_new_socket_to_comfyui_is_followed_by_looks_and_a_survey(world: World) -> None:
    key = give(world, 1)
    world.comfy.begin()
    world.comfy.finish(Outcome.SUCCESS)
    world.comfy.events.clear()
    world.rise()
    world.work()
    assert len(world.all(Complete, key)) == 1


def test_a_socket_that_said_nothing_of_an_end_is_opened_anew(world: World) -> None:
    give(world, 1)
    world.comfy.begin()
    world.comfy.finish(Outcome.SUCCESS)
    world.comfy.events.clear()
    world.tick(5_000)
    world.work()
    assert world.listens == [world.machine.client_id]


def test_a_socket_that_speaks_is_left_alone(world: World) -> None:
    give(world, 1)
    world.run_prompt()
    assert world.listens == []


def test_comfyui_gone_ends_what_it_had(world: World) -> None:
    key = give(world, 1)
    world.fall()
    assert credits(world) == 0
    for _ in range(10):
        world.tick(1_000)
        world.work()
    assert world.all(Fail, key)[0].failure.reason is Reason.COMFY_LOST


def test_nothing_that_is_lossy_is_said_while_there_is_no_broker(world: World) -> None:
    give(world, 1)
    world.comfy.begin()
    world.tick(20_000)  # silent for a lease
    assert world.sockets == 1
    before = len(world.said)
    while world.comfy.events:
        world.hear()
    assert len(world.said) == before
    world.tell_machine(welcome())
    assert isinstance(world.said[-1], Accepted)


def test_resumed_attempts_are_sought_and_events_follow_their_client_id() -> None:
    world = World()
    world.comfy.submit(prompt_id_for("0" * 8 + "-0000-4000-8000-" + "0" * 12, 1), f"comfyfleet:w1:{'f' * 32}")
    world.comfy.begin()
    world.comfy.events.clear()
    resume = Resume(
        job_id="0" * 8 + "-0000-4000-8000-" + "0" * 12, attempt=1, prompt_id="", cancelling=False, limits=LIMITS
    )
    world.join((resume,))
    assert world.listens == [f"comfyfleet:w1:{'f' * 32}"] == [world.machine.client_id]
    assert credits(world) == 1
    before = world.machine.runs[resume.job_id, 1]
    world.tell_machine(welcome((resume,)))
    assert len(world.all(Accepted)) == 2
    assert world.machine.runs[resume.job_id, 1] is before
    world.comfy.finish(Outcome.SUCCESS)
    while world.comfy.events:
        world.hear()
    world.work()
    assert len(world.all(Complete)) == 1


def test_strays_of_an_earlier_life_go_and_others_prompts_stay() -> None:
    world = World()
    theirs = f"comfyfleet:w1:{'f' * 32}"
    world.comfy.submit("old-1", theirs)
    world.comfy.begin()
    world.comfy.submit("old-2", theirs)
    world.comfy.submit("another worker's", f"comfyfleet:w12:{'f' * 32}")
    world.comfy.submit("somebody's", "editor")
    world.join()
    assert [item.prompt_id for item in world.comfy.pending] == ["another worker's", "somebody's"]
    assert world.comfy.interrupted and credits(world) == 0
    world.comfy.finish(Outcome.SUCCESS)
    world.tick(5_000)
    world.work()
    assert credits(world) == 2 and not world.said_of("old-1")


def test_no_stray_begins_because_another_was_interrupted() -> None:
    class Quick(ComfyModel):
        def interrupt(self, prompt_id: str) -> None:
            super().interrupt(prompt_id)
            self.finish(Outcome.SUCCESS)
            self.begin()

    world = World()
    world.comfy = Quick()
    for name in ("old-1", "old-2", "old-3"):
        world.comfy.submit(name, f"comfyfleet:w1:{'f' * 32}")
    world.comfy.begin()
    world.join()
    assert world.comfy.history.keys() == {"old-1"}
    assert world.comfy.begun == {"old-1": 1}


def test_a_doubtful_prompt_of_this_process_is_no_stray(world: World) -> None:
    world.tell_machine(dispatch(1))
    world.call(answered=False)
    world.rise()
    world.tick()
    while world.calls:
        assert not isinstance(world.calls[0], Interrupt)
        world.call()
    assert len(world.comfy.pending) == 1


def test_a_drain_hands_back_finishes_and_leaves(world: World) -> None:
    running, staged = give(world, 1), give(world, 2)
    world.comfy.begin()
    world.hear()
    world.act(world.machine.drain("told to", world.now_ms))
    world.act(world.machine.drain("told again", world.now_ms))
    world.work()
    assert world.all(Fail, staged)[0].failure.reason is Reason.DRAINING
    world.tell_machine(Recorded(job_id=staged[0], attempt=1))
    world.tell_machine(dispatch(3))
    late = dispatch(3).job_id, 1
    assert world.all(Fail, late)[0].failure.reason is Reason.DRAINING
    world.tell_machine(Recorded(job_id=late[0], attempt=1))
    assert world.stop is None
    world.run_prompt()
    world.tell_machine(Recorded(job_id=running[0], attempt=1))
    assert world.all(Leave) == [Leave(why="told to")]
    assert world.stop == Stop("told to", failed=False)


def test_attempts_resumed_by_a_draining_worker_are_handed_back_too() -> None:
    world = World()
    job_id = dispatch(9).job_id
    world.comfy.submit(prompt_id_for(job_id, 1), world.machine.client_id)
    world.rise()
    world.tell_machine(welcome())
    give(world, 1)
    world.comfy.begin()
    world.tell_machine(Drain())
    resume = Resume(job_id=job_id, attempt=1, prompt_id="", cancelling=False, limits=LIMITS)
    world.tell_machine(welcome((resume,), broker=BROKER))
    world.work()
    world.tick(2_000)
    world.work()
    assert {fail.failure.reason for fail in world.all(Fail)} <= {Reason.DRAINING}


def test_a_worker_that_holds_nothing_leaves_at_once() -> None:
    world = World()
    world.act(world.machine.drain("told to", 0))
    assert world.stop is not None and world.stop.why == "told to"


def test_wishes_about_unknown_attempts_do_nothing(world: World) -> None:
    before = len(world.said)
    for message in (
        CancelAttempt(job_id=dispatch(5).job_id, attempt=1),
        Abandon(job_id=dispatch(5).job_id, attempt=1, why="x"),
        Recorded(job_id=dispatch(5).job_id, attempt=1),
    ):
        world.tell_machine(message)
    assert world.machine.looked(("x", 1), None, 0) == []
    world.tell(("x", 1), lambda run, out: run.cancel(out, 0))
    assert len(world.said) == before


def test_the_client_id_is_the_workers_own(world: World) -> None:
    assert world.machine.client_id == f"comfyfleet:w1:{SESSION}"
    world.tell_machine(dispatch(1))
    assert isinstance(world.calls[-1], Submit)


def test_a_queue_item_without_client_is_nobodys(world: World) -> None:
    world.comfy.pending.append(QueueItem("x", 0.0, None, None))
    world.rise()
    world.work()
    assert len(world.comfy.pending) == 1
