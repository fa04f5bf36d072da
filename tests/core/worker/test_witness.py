"""What is made of ComfyUI's socket: reports, and pictures that exist nowhere else."""

from __future__ import annotations

from comfyui import messages
from comfyui.workflow import Workflow, of
from tests.core.worker.world import GRAPH, PACING, entry
from worker.core.asks import FromSocket
from worker.core.witness import Witness

KEY = ("00000000-0000-4000-8000-000000000001", 1)
SOCKET = {**GRAPH, "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}


def witness(workflow: Workflow | None = None) -> Witness:
    return Witness(KEY, workflow if workflow is not None else of(SOCKET), PACING)


def test_pictures_of_either_form_become_outputs_with_names_of_their_own() -> None:
    sees = witness()
    sees.heard(messages.Executing("p", "2"), 0)
    assert sees.heard(messages.Preview(None, None, "image/png", b"a"), 10_000) == []
    assert sees.heard(messages.Preview("p", "2", "image/png", b"b"), 20_000) == []
    assert sees.pictures == [FromSocket("2", "2_00001.png", b"a"), FromSocket("2", "2_00002.png", b"b")]
    assert sees.missed(entry("p", files=())) == "" and sees.overflow() == ""


def test_previews_of_the_same_prompt_stay_previews() -> None:
    sees = witness()
    sees.heard(messages.Executing("p", "1"), 0)
    (png,) = sees.heard(messages.Preview(None, None, "image/png", b"a"), 10_000)
    (jpeg,) = sees.heard(messages.Preview("p", "2", "image/jpeg", b"b"), 20_000)
    assert (png.image, jpeg.image) == (b"a", b"b") and sees.pictures == []
    assert jpeg.progress.node_type == "SaveImageWebsocket"


def test_pictures_that_never_came_are_missed() -> None:
    assert "node 2" in witness().missed(entry("p", files=()))
    assert Witness(KEY, of(GRAPH), PACING).missed(entry("p")) == ""


def test_pictures_that_came_while_the_socket_was_away_are_missed() -> None:
    sees = witness()
    sees.heard(messages.Executing("p", "2"), 0)
    sees.heard(messages.Progress("p", "2", 0, 3), 1)
    sees.heard(messages.Preview("p", "2", "image/png", b"a"), 2)
    assert "node 2" in sees.missed(entry("p", files=()))
    sees.heard(messages.Preview("p", "2", "image/png", b"b"), 3)
    sees.heard(messages.Preview("p", "2", "image/png", b"c"), 4)
    assert sees.missed(entry("p", files=())) == ""
    # All that is heard after it came back is how the nodes stand.
    sees.heard(messages.ProgressState("p", (messages.NodeProgress("2", "finished", 4, 4),)), 5)
    assert "node 2" in sees.missed(entry("p", files=()))


def test_steps_of_other_nodes_announce_no_pictures() -> None:
    sees = witness()
    sees.heard(messages.Progress("p", "1", 0, 20), 0)
    sees.heard(messages.Progress("p", "2", 0, 1), 1)
    sees.heard(messages.Preview("p", "2", "image/png", b"a"), 2)
    assert sees.missed(entry("p", files=())) == ""


def test_a_prompt_found_again_without_files_may_have_lost_pictures() -> None:
    sees = Witness(KEY, None, PACING)
    assert sees.missed(entry("p", files=())) and not sees.missed(entry("p"))


def test_messages_without_progress_say_nothing() -> None:
    sees = witness()
    for message in (
        messages.ExecutionStart("p"),
        messages.ExecutionCached("p", ("1",)),
        messages.Executed("p", "2"),
        messages.ProgressState("p", ()),
    ):
        assert sees.heard(message, 0) == []
    (step,) = sees.heard(messages.Progress("p", "2", 0, 1), 1_000)
    assert step.progress.node_id == "2"
    (words,) = sees.heard(messages.ProgressText("2", "hello"), 2_000)
    assert words.progress.text == "hello"
    assert sees.heard(messages.Progress("p", "2", 1, 1), 2_001) == []
    assert sees.deadline_ms() == 2_100 and len(sees.due(2_100)) == 1
