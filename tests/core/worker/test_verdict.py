"""Reasons for failures, and which files are a result."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.codec import WORKER_SENDS, decode, encode
from broker.protocol.records import Reason, Timings
from broker.protocol.worker import Fail
from comfyui.errors import ComfyRejected
from comfyui.messages import ExecutionError
from comfyui.outputs import OutputFile
from comfyui.replies import Outcome
from tests.core.comfyui.strategies import any_text
from tests.core.worker.world import entry
from worker.core import verdict
from worker.core.asks import FromComfy, FromSocket
from worker.core.steps import Step

NO_TIME = Timings(staging_ms=0, waiting_ms=0, running_ms=0, loading_ms=0, finishing_ms=0)


def file(name: str, folder: str = "output", node_id: str = "2") -> OutputFile:
    return OutputFile(node_id, "images", name, "", folder)


def test_a_refusal_names_the_node_that_is_wrong() -> None:
    error = ComfyRejected("node 7: too small", error="x", node_errors={"7": ("too small",)})
    failure = verdict.of_refusal(error)
    assert (failure.reason, failure.node_id, failure.text) == (Reason.INVALID_WORKFLOW, "7", "node 7: too small")
    assert verdict.of_refusal(ComfyRejected("no")).node_id == ""


def test_a_success_is_no_failure_and_an_error_without_reason_says_so() -> None:
    assert verdict.of_history(entry("p")) is None
    silent = verdict.of_history(entry("p", Outcome.ERROR))
    assert silent is not None and silent.reason is Reason.NODE_ERROR
    stopped = verdict.of_history(entry("p", Outcome.INTERRUPTED))
    assert stopped is not None and stopped.reason is Reason.INTERRUPTED


def test_an_error_without_a_type_is_its_message_alone() -> None:
    assert verdict.of_error(ExecutionError("p", "1", "X", "", "boom", ())).text == "boom"


def test_the_end_of_a_long_traceback_is_kept() -> None:
    lines = tuple(f"line {number} " + "x" * 1_000 for number in range(60))
    traceback = verdict.of_error(ExecutionError("p", "1", "X", "E", "m", lines)).traceback
    assert "line 59" in traceback and "line 0 " not in traceback


@given(any_text, any_text, any_text, st.lists(any_text).map(tuple))
def test_whatever_a_node_says_fits_the_contract(kind: str, text: str, node: str, lines: tuple[str, ...]) -> None:
    error = ExecutionError("p", node * 50, node, kind, text * 200, lines * 300)
    fail = Fail(
        job_id="00000000-0000-4000-8000-000000000001", attempt=1, failure=verdict.of_error(error), timings=NO_TIME
    )
    assert decode(encode(fail), WORKER_SENDS) == fail


@pytest.mark.parametrize(
    ("step", "accepted_before", "gone", "reason"),
    [
        (Step.RUNNING, False, True, Reason.COMFY_LOST),
        (Step.UNSURE, False, False, Reason.COMFY_UNREACHABLE),
        (Step.SOUGHT, True, False, Reason.WORKER_LOST),
        (Step.SOUGHT, False, False, Reason.NOT_ACCEPTED),
        (Step.WAITING, False, False, Reason.COMFY_LOST),
    ],
)
def test_what_it_means_that_comfyui_does_not_have_it(
    step: Step, accepted_before: bool, gone: bool, reason: Reason
) -> None:
    assert verdict.of_loss(step, accepted_before=accepted_before, gone=gone).reason is reason


def test_saved_files_are_the_result_each_once_in_order() -> None:
    files = (file("a"), file("p", "temp"), file("b", node_id="3"), file("a"), file("i", "input"))
    assert verdict.results(files, ()) == (FromComfy(file("a")), FromComfy(file("b", node_id="3")))


def test_previews_are_the_result_only_where_nothing_else_is() -> None:
    picture = FromSocket("4", "x", b"")
    files = (file("p", "temp"),)
    assert verdict.results(files, ()) == (FromComfy(files[0]),)
    assert verdict.results(files, (picture,)) == (picture,)
    assert verdict.results((*files, file("a")), (picture,)) == (FromComfy(file("a")), picture)
    assert verdict.results((), ()) == ()
