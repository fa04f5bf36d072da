"""One attempt: events in, asks and messages out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from broker.protocol.records import InputFile, Limits, Phase, ProgressKind, Reason, Timings
from broker.protocol.worker import Accepted, Complete, Fail, ProgressReport
from comfyui import messages
from comfyui.messages import ExecutionError
from comfyui.outputs import OutputFile
from comfyui.replies import Finished, Outcome
from comfyui.workflow import Workflow
from tests.core.worker.attempt import ABSENT, ID, JOB, KEY, PENDING, RUNNING, Try
from tests.core.worker.world import GRAPH, PACING, entry, output
from worker.core import verdict
from worker.core.asks import Deliver, Dequeue, Drop, Free, FromComfy, Interrupt, Look, Stage, Submit
from worker.core.patience import AGAIN_MS, GONE_LOOKS, GRACE_MS
from worker.core.run import SUBMITS
from worker.core.steps import Step

# ---- the usual way


def test_from_dispatch_to_recorded() -> None:
    attempt = Try()
    (submit,) = attempt.out
    assert isinstance(submit, Submit) and submit.prompt_id == ID and submit.workflow.graph() == GRAPH
    assert attempt.phase() is Phase.STAGING
    assert attempt.tell("submitted", ID, {}, 5) == [Accepted(job_id=JOB, attempt=1, prompt_id=ID)]
    assert attempt.phase() is Phase.STAGED
    attempt.now_ms = 12
    (started,) = attempt.hear(messages.ExecutionStart(ID))
    assert isinstance(started, ProgressReport) and started.progress.kind is ProgressKind.STARTED
    assert attempt.phase() is Phase.RUNNING
    assert attempt.hear(messages.Executing(ID, None)) == [Look(KEY, ID)]
    (deliver,) = attempt.look(Finished(entry(ID)), 30)
    assert isinstance(deliver, Deliver) and len(deliver.sources) == 1
    assert attempt.phase() is Phase.FINISHING and not attempt.run.in_front
    (complete,) = attempt.tell("delivered", (output("a"),), 40)
    assert complete.outputs == (output("a"),)
    assert complete.timings == Timings(staging_ms=5, waiting_ms=7, running_ms=18, loading_ms=0, finishing_ms=10)
    assert (attempt.phase(), attempt.run.over) == (Phase.ENDED, False)
    attempt.run.recorded()
    assert (attempt.run.over, attempt.phase()) == (True, None)


def test_files_are_brought_before_the_prompt_is_sent_and_take_their_new_names() -> None:
    graph = {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": "a b.png"}}}
    files = (InputFile(name="a b.png", sha256="0" * 64, size_bytes=3),)
    attempt = Try(files=files, workflow=json.dumps(graph).encode())
    assert attempt.out == [Stage(KEY, files)]
    (submit,) = attempt.tell("inputs_staged", {"a b.png": "fleet_0.png"}, 5)
    assert submit.workflow.nodes["1"].inputs == {"image": "fleet_0.png"}


def test_files_with_impossible_names_are_the_workflows_fault() -> None:
    graph = {**GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    attempt = Try(files=(InputFile(name="a.png", sha256="0" * 64, size_bytes=3),), workflow=json.dumps(graph).encode())
    attempt.tell("inputs_staged", {"a.png": "../x"}, 5)
    assert attempt.reason() is Reason.INVALID_WORKFLOW


def test_a_success_without_files_completes_at_once() -> None:
    attempt = Try()
    attempt.start()
    (complete,) = attempt.look(Finished(entry(ID, files=())))
    assert isinstance(complete, Complete) and complete.outputs == ()


def test_silence_is_answered_with_a_look() -> None:
    attempt = Try()
    attempt.submit()
    assert attempt.run.deadline_ms() == PACING.poll_ms
    assert attempt.at(PACING.poll_ms - 1) == []
    assert attempt.at(PACING.poll_ms) == [Look(KEY, ID)]
    assert attempt.at(PACING.poll_ms + 1) == []  # the answer is awaited
    attempt.look(PENDING)
    assert attempt.run.deadline_ms() == 2 * PACING.poll_ms + 1


def test_a_new_socket_is_followed_by_a_look() -> None:
    attempt = Try()
    attempt.submit()
    attempt.run.look_now(10)
    assert attempt.at(10) == [Look(KEY, ID)]


def test_a_deaf_socket_delays_and_never_prevents() -> None:
    attempt = Try()
    attempt.submit()
    (started,) = attempt.look(RUNNING, 5_000)
    assert isinstance(started, ProgressReport)
    (deliver,) = attempt.look(Finished(entry(ID)), 10_000)
    assert isinstance(deliver, Deliver)


# ---- it does not begin


def test_a_workflow_that_is_none() -> None:
    attempt = Try(workflow=b"[]")
    assert attempt.reason() is Reason.INVALID_WORKFLOW and attempt.run.step is Step.OUT


def test_refused() -> None:
    attempt = Try()
    attempt.tell("not_taken", verdict.failure(Reason.INVALID_WORKFLOW, "no"), 1)
    attempt.tell("not_taken", verdict.failure(Reason.INVALID_WORKFLOW, "no"), 1)
    assert attempt.reason() is Reason.INVALID_WORKFLOW


def test_taken_in_part_only() -> None:
    attempt = Try()
    accepted, fail, dequeue = attempt.tell("submitted", ID, {"7": ("node 7: bad",)}, 1)
    assert fail.failure.reason is Reason.INVALID_WORKFLOW and fail.failure.node_id == "7"
    assert isinstance(accepted, Accepted) and dequeue == Dequeue(ID)
    assert attempt.run.stuck
    attempt.look(ABSENT)
    assert (attempt.run.stuck, len(attempt.ends())) == (False, 1)


def test_a_doubtful_submit_is_looked_for_before_it_is_sent_again() -> None:
    attempt = Try()
    attempt.run.unsure(0)
    assert attempt.at(AGAIN_MS) == [Look(KEY, ID)]
    assert attempt.look(ABSENT) == []
    assert attempt.at(2 * AGAIN_MS) == [Look(KEY, ID)]
    (again,) = attempt.look(ABSENT)
    assert isinstance(again, Submit)


@pytest.mark.parametrize("found", [PENDING, RUNNING, Finished(entry(ID))])
def test_a_doubtful_submit_that_is_found_is_accepted(found: Any) -> None:
    attempt = Try()
    attempt.run.unsure(0)
    assert attempt.look(found)[0] == Accepted(job_id=JOB, attempt=1, prompt_id=ID)


def test_a_doubtful_submit_that_the_socket_tells_of_is_accepted() -> None:
    attempt = Try()
    attempt.run.unsure(0)
    assert attempt.hear(messages.ExecutionStart(ID))[0] == Accepted(job_id=JOB, attempt=1, prompt_id=ID)


def test_a_prompt_that_is_never_taken_is_given_up() -> None:
    attempt = Try()
    for _ in range(SUBMITS):
        attempt.run.unsure(0)
        attempt.look(ABSENT)
        attempt.look(ABSENT)
    assert len([ask for ask in attempt.out if isinstance(ask, Submit)]) == SUBMITS
    assert attempt.reason() is Reason.COMFY_UNREACHABLE


# ---- it does not end well


@pytest.mark.parametrize(
    ("error", "reason", "frees"),
    [
        (("ValueError", "no"), Reason.NODE_ERROR, False),
        (("torch.OutOfMemoryError", "x"), Reason.OUT_OF_MEMORY, True),
        (("RuntimeError", "CUDA error: device-side assert triggered"), Reason.POISONED, False),
    ],
)
def test_a_node_that_raises(error: tuple[str, str], reason: Reason, frees: bool) -> None:
    attempt = Try()
    attempt.start()
    failure = ExecutionError(ID, "5", "KSampler", *error, ("line 1", "line 2"))
    said = attempt.look(Finished(entry(ID, Outcome.ERROR, failure=failure)))
    assert attempt.reason() is reason
    assert (Free() in said) is frees
    assert (said[-1].failure.node_id, said[-1].failure.node_type) == ("5", "KSampler")
    assert said[-1].failure.traceback == "line 1\nline 2"


def test_interrupted_by_somebody_else() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(Finished(entry(ID, Outcome.INTERRUPTED)))
    assert attempt.reason() is Reason.INTERRUPTED


def test_absent_twice_in_a_row_is_lost_and_once_is_not() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(ABSENT)
    attempt.look(RUNNING)
    attempt.look(ABSENT)
    assert not attempt.ends()
    attempt.look(ABSENT)
    assert attempt.reason() is Reason.COMFY_LOST


def test_a_comfyui_that_is_gone_has_lost_the_prompt() -> None:
    attempt = Try()
    attempt.start()
    for _ in range(GONE_LOOKS):
        assert not attempt.ends()
        attempt.tell("unreachable", 0, gone=True)
    assert attempt.reason() is Reason.COMFY_LOST


def test_a_comfyui_that_hangs_has_until_the_stall_limit() -> None:
    attempt = Try(limits=Limits(start_to_close_ms=600_000, stall_ms=20_000, hung_ms=0))
    attempt.start()
    for _ in range(2 * GONE_LOOKS):
        attempt.tell("unreachable", 0, gone=False)
    assert not attempt.ends()
    assert Interrupt(ID) in attempt.at(20_000)
    attempt.at(20_000 + GRACE_MS)
    assert attempt.reason() is Reason.STALLED and attempt.run.stuck


def test_a_node_that_says_nothing_is_alive_while_the_queue_shows_it_running() -> None:
    attempt = Try(limits=Limits(start_to_close_ms=600_000, stall_ms=20_000, hung_ms=0))
    attempt.start()
    for now_ms in range(5_000, 100_000, 5_000):
        attempt.look(RUNNING, now_ms)
        attempt.at(now_ms)
    assert not attempt.ends() and Interrupt(ID) not in attempt.out


def test_a_staged_prompt_may_wait_behind_others_and_not_where_it_is_the_next_and_nothing_runs() -> None:
    limits = Limits(start_to_close_ms=600_000, stall_ms=20_000, hung_ms=0)
    for ahead in (1, 0):
        attempt = Try(limits=limits)
        attempt.submit()
        for now_ms in range(5_000, 100_000, 5_000):
            attempt.look(dataclasses.replace(PENDING, ahead=ahead), now_ms)
            attempt.at(now_ms)
        assert (Dequeue(ID) in attempt.out) is not bool(ahead)


def test_the_limit_on_the_whole_run() -> None:
    attempt = Try(limits=Limits(start_to_close_ms=30_000, stall_ms=600_000, hung_ms=0))
    attempt.start()
    assert Interrupt(ID) in attempt.at(30_000)
    attempt.look(Finished(entry(ID, Outcome.INTERRUPTED)), 30_500)
    assert attempt.reason() is Reason.TIMEOUT


def test_a_result_that_comes_just_after_the_limit_stands() -> None:
    attempt = Try(limits=Limits(start_to_close_ms=30_000, stall_ms=600_000, hung_ms=0))
    attempt.start()
    attempt.at(30_000)
    assert isinstance(attempt.look(Finished(entry(ID)))[0], Deliver)


def test_outputs_that_cannot_be_had() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(Finished(entry(ID)))
    # Else the next try would get the lost file out of ComfyUI's cache.
    assert Free() in attempt.tell("delivery_failed", "cut", 1)
    assert attempt.reason() is Reason.OUTPUT_LOST


def test_files_on_their_way_are_a_sign_of_life() -> None:
    attempt = Try(
        files=(InputFile(name="a", sha256="0" * 64, size_bytes=3),),
        limits=Limits(start_to_close_ms=1, stall_ms=10, hung_ms=0),
    )
    attempt.run.moving(5)
    assert attempt.at(12) == []
    assert Drop(KEY) in attempt.at(15)
    assert attempt.reason() is Reason.STALLED


# ---- what the broker lacks


def test_missing_outputs_are_delivered_again_and_completed_again() -> None:
    attempt = Try()
    attempt.start()
    (deliver,) = attempt.look(Finished(entry(ID)))
    attempt.tell("delivered", (output("a"),), 1)
    assert attempt.tell("outputs_missing") == [dataclasses.replace(deliver, surely=True)]
    assert attempt.tell("outputs_missing") == []
    attempt.tell("delivered", (output("a"),), 2)
    assert len(attempt.ends()) == 2
    attempt.run.recorded()
    assert attempt.tell("outputs_missing") == []


def test_missing_outputs_that_are_gone_end_the_attempt_otherwise() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(Finished(entry(ID)))
    attempt.tell("delivered", (output("a"),), 1)
    attempt.tell("outputs_missing")
    attempt.tell("delivery_failed", "gone", 2)
    assert isinstance(attempt.ends()[-1], Fail)


# ---- hints


def test_results_are_on_their_way_before_the_history_confirms_them() -> None:
    attempt = Try()
    attempt.start()
    attempt.hear(messages.Executed(ID, "2", entry(ID).files))
    (deliver,) = attempt.hear(messages.ExecutionSuccess(ID))
    assert deliver == Deliver(KEY, (FromComfy(entry(ID).files[0]),))
    assert attempt.phase() is Phase.RUNNING and attempt.run.in_front
    assert attempt.hear(messages.ExecutionSuccess(ID)) == []
    assert attempt.look(Finished(entry(ID))) == []
    assert attempt.phase() is Phase.FINISHING
    (complete,) = attempt.tell("delivered", (output("a"),), 5)
    assert complete.outputs == (output("a"),)


def test_results_that_are_stored_before_the_history_confirms_them() -> None:
    attempt = Try()
    attempt.start()
    attempt.hear(messages.Executed(ID, "2", entry(ID).files))
    attempt.hear(messages.ExecutionSuccess(ID))
    assert attempt.tell("delivered", (output("a"),), 5) == []
    (complete,) = attempt.look(Finished(entry(ID)))
    assert complete.outputs == (output("a"),)


def test_what_the_history_says_counts_and_not_what_was_hinted() -> None:
    first, second, other = (
        OutputFile("2", "images", f"{name}.png", "", "output") for name in ("first", "second", "other")
    )
    for hinted, left in [((second, first), False), ((first, second, other), False), ((first,), True), ((), True)]:
        attempt = Try()
        attempt.start()
        attempt.hear(messages.Executed(ID, "2", hinted))
        attempt.hear(messages.ExecutionSuccess(ID))
        said = attempt.look(Finished(entry(ID, files=(first, second))))
        assert said == ([Deliver(KEY, (FromComfy(first), FromComfy(second)))] if left else [])
        sources = (first, second) if left else hinted
        (complete,) = attempt.tell("delivered", tuple(output(file.filename) for file in sources), 5)
        assert complete.outputs == (output("first.png"), output("second.png"))


@pytest.mark.parametrize("confirmed_first", [True, False])
def test_a_hint_that_cannot_be_had_is_no_failure(confirmed_first: bool) -> None:
    result, no_file = entry(ID).files[0], OutputFile("2", "images", "no.png", "", "output")
    attempt = Try()
    attempt.start()
    attempt.hear(messages.Executed(ID, "2", (result, no_file)))
    attempt.hear(messages.ExecutionSuccess(ID))
    found, failed = ("look", Finished(entry(ID))), ("tell", "delivery_failed", "gone", 1)
    said = [getattr(attempt, do)(*how) for do, *how in ((found, failed) if confirmed_first else (failed, found))]
    assert said == [[], [Deliver(KEY, (FromComfy(result),))]]
    attempt.tell("delivered", (output("a"),), 5)
    assert [type(end) for end in attempt.ends()] == [Complete]


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.INTERRUPTED])
def test_a_success_that_the_history_denies_is_none(outcome: Outcome) -> None:
    attempt = Try()
    attempt.start()
    attempt.hear(messages.Executed(ID, "2", entry(ID).files))
    attempt.hear(messages.ExecutionSuccess(ID))
    attempt.look(Finished(entry(ID, outcome)))
    attempt.tell("delivered", (output("a"),), 5)
    assert [type(end) for end in attempt.ends()] == [Fail]


def test_pictures_over_the_socket_beyond_every_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.core.witness.PICTURES", 1)
    graph = {**GRAPH, "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    attempt = Try(workflow=json.dumps(graph).encode())
    attempt.start()
    attempt.hear(messages.Executing(ID, "2"))
    attempt.hear(messages.Preview(None, None, "image/png", b"a"))
    assert Interrupt(ID) in attempt.hear(messages.Preview(None, None, "image/png", b"b"))
    assert attempt.reason() is Reason.INVALID_WORKFLOW


def test_files_and_pictures_together_beyond_what_can_be_told() -> None:
    graph = {**GRAPH, "3": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    attempt = Try(workflow=json.dumps(graph).encode())
    attempt.start()
    attempt.hear(messages.Executing(ID, "3"))
    for _ in range(600):
        attempt.hear(messages.Preview(None, None, "image/png", b"a"))
    files = tuple(OutputFile("2", "images", f"{number}.png", "", "output") for number in range(600))
    attempt.look(Finished(entry(ID, files=files)))
    assert attempt.reason() is Reason.INVALID_WORKFLOW and attempt.run.held is not None


def test_events_after_the_end_change_nothing() -> None:
    attempt = Try()
    attempt.start()
    attempt.look(Finished(entry(ID)))
    before = list(attempt.out)
    attempt.hear(messages.Executing(ID, None))
    attempt.hear(messages.Executing(ID, "1"))
    attempt.look(RUNNING)
    attempt.look(ABSENT)
    attempt.submit()
    attempt.run.unsure(0)
    attempt.run.look_now(0)
    attempt.tell("unreachable", 0, gone=True)
    attempt.tell("inputs_staged", {}, 0)
    assert attempt.out == before


def test_an_illegal_step_is_our_bug_and_says_so() -> None:
    attempt = Try()
    with pytest.raises(AssertionError, match="SUBMITTING"):
        attempt.run._move(Step.RUNNING)
    assert attempt.run.step is Step.SUBMITTING
    (submit,) = Try().out
    assert isinstance(submit.workflow, Workflow)
