"""An attempt that is taken back, and one that is found again after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from broker.protocol.records import Limits, Reason, Resume
from broker.protocol.worker import Accepted
from comfyui import messages
from comfyui.replies import Finished, Outcome
from tests.core.worker.attempt import ABSENT, ID, JOB, KEY, PENDING, RUNNING, Try
from tests.core.worker.world import LIMITS, PACING, entry, output
from worker.core.asks import Deliver, Dequeue, Drop, Interrupt, Look, Submit
from worker.core.patience import GRACE_MS
from worker.core.run import Run
from worker.core.steps import Step

# ---- it is taken back


def cancelled(attempt: Try) -> list[Any]:
    return attempt.tell("cancel", attempt.now_ms)


def test_cancel_before_comfyui_has_it() -> None:
    attempt = Try()
    drop, _fail = cancelled(attempt)
    assert drop == Drop(KEY) and attempt.reason() is Reason.CANCELLED


def test_cancel_while_it_waits() -> None:
    attempt = Try()
    attempt.submit()
    assert cancelled(attempt) == [Dequeue(ID)]
    assert attempt.at(0) == [Look(KEY, ID)]
    attempt.look(ABSENT)
    assert attempt.reason() is Reason.CANCELLED and attempt.run.step is Step.OUT


def test_cancel_while_it_waits_but_it_starts() -> None:
    attempt = Try()
    attempt.submit()
    cancelled(attempt)
    assert Interrupt(ID) in attempt.look(RUNNING)
    attempt.look(Finished(entry(ID, Outcome.INTERRUPTED)))
    assert attempt.reason() is Reason.CANCELLED


def test_cancel_while_it_runs_is_asked_for_until_it_ends() -> None:
    attempt = Try()
    attempt.start()
    assert cancelled(attempt) == [Interrupt(ID)]
    assert Interrupt(ID) in attempt.look(RUNNING)
    assert not attempt.ends()


@pytest.mark.parametrize("wish", ["cancel", "abandon"])
def test_an_interrupt_that_was_lost_is_repeated_however_much_the_prompt_says(wish: str) -> None:
    attempt = Try()
    attempt.start()
    attempt.tell(wish, 0)
    asked: list[int] = []
    for now_ms in range(100, 5_000, 100):
        attempt.now_ms = now_ms
        attempt.hear(messages.Progress(ID, "1", now_ms, 5_000))
        if Look(KEY, ID) in attempt.at(now_ms):
            assert Interrupt(ID) in attempt.look(RUNNING)
            asked.append(now_ms)
    assert asked == [1_000, 2_000, 3_000, 4_000]


def test_cancel_too_late() -> None:
    attempt = Try()
    attempt.start()
    cancelled(attempt)
    assert isinstance(attempt.look(Finished(entry(ID)))[0], Deliver)
    assert cancelled(attempt) == []


def test_cancel_while_nobody_knows_whether_comfyui_has_it() -> None:
    attempt = Try()
    attempt.run.unsure(0)
    cancelled(attempt)
    attempt.look(ABSENT)
    attempt.look(ABSENT)
    assert attempt.reason() is Reason.CANCELLED
    assert len([ask for ask in attempt.out if isinstance(ask, Submit)]) == 1


def test_a_hand_back_takes_what_waits_and_leaves_what_runs() -> None:
    attempt = Try()
    attempt.submit()
    assert attempt.tell("hand_back", "leaving", 0) == [Dequeue(ID)]
    attempt.look(RUNNING)
    assert Interrupt(ID) not in attempt.out
    assert attempt.tell("hand_back", "leaving", 0) == []
    assert isinstance(attempt.look(Finished(entry(ID)))[0], Deliver)


def test_a_cancel_overrides_a_hand_back_and_not_the_other_way_round() -> None:
    attempt = Try()
    attempt.submit()
    attempt.tell("hand_back", "leaving", 0)
    cancelled(attempt)
    attempt.tell("hand_back", "leaving", 0)
    assert Interrupt(ID) in attempt.look(RUNNING)


@pytest.mark.parametrize("step", ["staging", "waiting", "running", "unsure"])
def test_abandon_says_nothing_and_takes_the_prompt_back(step: str) -> None:
    attempt = Try()
    if step == "waiting":
        attempt.submit()
    elif step == "running":
        attempt.start()
    elif step == "unsure":
        attempt.run.unsure(0)
    asked = attempt.tell("abandon", 0)
    wanted = {"staging": [Drop(KEY)], "waiting": [Dequeue(ID)], "running": [Interrupt(ID)], "unsure": []}
    assert asked == wanted[step] and attempt.run.held is None
    attempt.look(ABSENT)
    attempt.look(ABSENT)
    attempt.tell("abandon", 0)
    attempt.run.recorded()
    assert attempt.run.over and not attempt.ends()


def test_abandon_while_outputs_are_on_their_way() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(Finished(entry(ID)))
    assert attempt.tell("abandon", 0) == [Drop(KEY)]
    attempt.tell("delivered", (output("a"),), 1)
    assert attempt.run.over and not attempt.ends()


def test_a_prompt_that_outlives_its_attempt_is_stuck_until_comfyui_lets_go() -> None:
    attempt = Try(limits=Limits(start_to_close_ms=1_000, stall_ms=600_000, hung_ms=0))
    attempt.start()
    attempt.at(1_000)
    attempt.at(1_000 + GRACE_MS)
    assert attempt.reason() is Reason.TIMEOUT
    attempt.run.recorded()
    assert attempt.run.stuck and not attempt.run.over and attempt.run.held is None
    assert Interrupt(ID) in attempt.look(RUNNING)
    attempt.look(Finished(entry(ID)))
    assert (attempt.run.over, len(attempt.ends())) == (True, 1)


# ---- it is found again


def resumed(**changes: Any) -> Try:
    out: list[Any] = []
    said = Resume(job_id=JOB, attempt=1, prompt_id=ID, cancelling=False, limits=LIMITS)
    said = Resume(**{name: changes.get(name, getattr(said, name)) for name in said.__slots__})
    attempt = Try(Run.resumed(out, said, PACING, 0))
    attempt.out = out
    return attempt


@pytest.mark.parametrize("found", [PENDING, RUNNING])
def test_resumed_and_still_in_comfyui(found: Any) -> None:
    attempt = resumed()
    assert attempt.out == [Look(KEY, ID)]
    assert attempt.look(found)[0] == Accepted(job_id=JOB, attempt=1, prompt_id=ID)


def test_resumed_and_finished_meanwhile() -> None:
    attempt = resumed()
    accepted, deliver = attempt.look(Finished(entry(ID)))
    assert isinstance(accepted, Accepted) and isinstance(deliver, Deliver)


@pytest.mark.parametrize(("prompt_id", "reason"), [(ID, Reason.WORKER_LOST), ("", Reason.NOT_ACCEPTED)])
def test_resumed_and_gone(prompt_id: str, reason: Reason) -> None:
    attempt = resumed(prompt_id=prompt_id)
    attempt.look(ABSENT)
    attempt.look(ABSENT)
    assert attempt.reason() is reason


def test_resumed_and_cancelled() -> None:
    attempt = resumed(cancelling=True)
    assert Interrupt(ID) in attempt.look(RUNNING)


def test_resumed_results_that_went_over_the_socket_of_the_earlier_process_are_lost() -> None:
    attempt = resumed()
    attempt.look(Finished(entry(ID, files=())))
    assert attempt.reason() is Reason.OUTPUT_LOST


def test_a_stray_only_has_to_go() -> None:
    out: list[Any] = []
    attempt = Try(Run.stray(out, ("x", 0), ID, PACING, 0))
    assert out == [Look(("x", 0), ID)]
    assert Dequeue(ID) in attempt.look(PENDING)
    attempt.look(ABSENT)
    assert attempt.run.over and not attempt.ends() and attempt.run.deadline_ms() is None
