import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import replies
from comfyui.outputs import FILES, OutputFile
from comfyui.replies import Features, Outcome, ReplyError
from tests.core.comfyui.strategies import json_values

START: list[Any] = ["execution_start", {"prompt_id": "p", "timestamp": 1000}]
CACHED: list[Any] = ["execution_cached", {"nodes": [], "prompt_id": "p", "timestamp": 1001}]


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def entry(*messages: list[Any], status: str = "success", **fields: object) -> bytes:
    shown = {"status_str": status, "completed": status == "success", "messages": messages}
    return body({"p": {"prompt": [3, "p", {}, {"client_id": "c"}, ["9"]], "outputs": {}, "status": shown, **fields}})


def test_system_stats_of_a_real_server() -> None:
    stats = replies.system_stats(
        body(
            {
                "system": {
                    "os": "posix",
                    "ram_total": 25276502016,
                    "ram_free": 24155168768,
                    "comfyui_version": "0.3.64",
                    "pytorch_version": "2.13.0+cpu",
                    "argv": ["main.py", "--cpu"],
                },
                "devices": [
                    {"name": "cuda:0 NVIDIA", "type": "cuda", "index": 0, "vram_total": 24, "vram_free": 20},
                    {"name": "cpu", "type": "cpu", "index": None, "vram_total": 8, "vram_free": 4},
                ],
            }
        )
    )
    assert (stats.version, stats.version_text, stats.argv) == ((0, 3, 64), "0.3.64", ("main.py", "--cpu"))
    assert [(d.name, d.index, d.vram_free_bytes) for d in stats.devices] == [("cuda:0 NVIDIA", 0, 20), ("cpu", None, 4)]
    assert stats.ram_free_bytes == 24155168768


def test_an_old_server_says_less() -> None:
    stats = replies.system_stats(body({"system": {"os": "nt"}}))
    assert (stats.version, stats.devices, stats.ram_total_bytes) == ((), (), 0)


@pytest.mark.parametrize(
    ("text", "version"),
    [("0.3.64", (0, 3, 64)), ("v0.45.2", (0, 45, 2)), ("0.38.1-dev", (0, 38, 1)), ("1", (1,)), ("?", ()), ("٣.٣", ())],
)
def test_versions_are_numbers(text: str, version: tuple[int, ...]) -> None:
    assert replies.version_of(text) == version


@pytest.mark.parametrize(
    ("version", "own_prompt_id", "targeted_interrupt"),
    [
        ((), False, False),
        ((0, 2, 7), False, False),
        ((0, 3, 34), False, False),
        ((0, 3, 45), True, False),
        ((0, 3, 57), True, True),
        ((0, 4), True, True),
        ((0, 45, 2), True, True),
    ],
)
def test_features_by_version(version: tuple[int, ...], own_prompt_id: bool, targeted_interrupt: bool) -> None:
    assert Features.of(version, jobs_api=False) == Features(own_prompt_id, targeted_interrupt, False)
    assert Features.of(version, jobs_api=True).atomic_cancel


def test_submitted_tells_of_skipped_outputs() -> None:
    errors = {"4": {"errors": [{"message": "Value not in list", "details": "x"}], "class_type": "SaveImage"}}
    taken = replies.submitted(body({"prompt_id": "p", "number": 7.0, "node_errors": errors}))
    assert (taken.prompt_id, taken.number) == ("p", 7.0)
    assert taken.node_errors == {"4": ("node 4 (SaveImage): Value not in list: x",)}
    assert replies.submitted(body({"prompt_id": "p", "number": 0, "node_errors": {}})).node_errors == {}


@pytest.mark.parametrize(
    "value", [{}, {"prompt_id": 7}, {"prompt_id": ""}, {"prompt_id": None}, {"prompt_id": "p", "number": "1"}, []]
)
def test_an_answer_without_an_id_is_none(value: object) -> None:
    with pytest.raises(ReplyError):
        replies.submitted(body(value))


def test_pending_prompts_are_sorted_into_the_order_they_run_in() -> None:
    items = [[n, prompt_id, {}, {"client_id": "c", "submit_id": "s"}, []] for n, prompt_id in ((2, "b"), (0, "z"))]
    queue = replies.queue(body({"queue_running": [[1, "r"]], "queue_pending": [*items, [2, "a", {}, None]]}))
    assert [item.prompt_id for item in queue.pending] == ["z", "a", "b"]
    assert (queue.running[0].prompt_id, queue.running[0].client_id) == ("r", None)
    assert (queue.pending[0].client_id, queue.pending[0].submit_id) == ("c", "s")


@pytest.mark.parametrize("client_id", ["comfyfleet:w1:\ud800", "comfyfleet:w1:" + "x" * 300, 7])
def test_a_client_id_that_no_socket_can_have_is_nobodys(client_id: object) -> None:
    item = [0, "p", {}, {"client_id": client_id}, []]
    queue = replies.queue(body({"queue_running": [item], "queue_pending": []}))
    assert queue.running[0].client_id is None


@pytest.mark.parametrize(
    "value",
    [{}, {"queue_running": [], "queue_pending": [7]}, {"queue_running": [["a", "p"]], "queue_pending": []}, [], None],
)
def test_a_queue_that_is_none(value: object) -> None:
    with pytest.raises(ReplyError):
        replies.queue(body(value))


def test_a_success_lists_every_file_of_every_node() -> None:
    outputs = {
        "9": {"images": [{"filename": "a_00001_.png", "subfolder": "x", "type": "output"}], "animated": [False]},
        "10": {"gifs": [{"filename": "b.mp4", "format": "video/h264-mp4"}], "text": ["words"]},
        "11": None,
    }
    success = ["execution_success", {"prompt_id": "p", "timestamp": 1500}]
    [found] = replies.history(entry(START, CACHED, success, outputs=outputs))
    assert (found.prompt_id, found.outcome, found.failure, found.run_ms) == ("p", Outcome.SUCCESS, None, 500)
    assert found.files == (
        OutputFile("9", "images", "a_00001_.png", "x", "output"),
        OutputFile("10", "gifs", "b.mp4", "", "output"),
    )


def test_an_error_names_its_node() -> None:
    error = ["execution_error", {"prompt_id": "p", "node_id": "1", "exception_type": "ValueError", "timestamp": 1200}]
    [found] = replies.history(entry(START, CACHED, error, status="error"))
    assert found.outcome is Outcome.ERROR
    assert found.failure is not None and (found.failure.node_id, found.failure.exception_type) == ("1", "ValueError")


def test_an_interrupt_is_told_by_the_last_message_alone() -> None:
    stopped = ["execution_interrupted", {"prompt_id": "p", "node_id": "3", "timestamp": 1300}]
    [found] = replies.history(entry(START, CACHED, stopped, status="error"))
    assert (found.outcome, found.failure, found.run_ms) == (Outcome.INTERRUPTED, None, 300)


def test_an_error_in_mid_run_of_a_success_is_none() -> None:
    blocked = ["execution_error", {"prompt_id": "p"}]
    [found] = replies.history(entry(START, blocked, ["execution_success", {"prompt_id": "p"}]))
    assert (found.outcome, found.failure) == (Outcome.SUCCESS, None)


def test_an_error_at_the_end_counts_more_than_the_status() -> None:
    """Recorded with 0.3.64: where nodes turn in circles it tells the error, and the success of the node before."""
    error = ["execution_error", {"prompt_id": "p", "node_id": "2", "exception_type": "graph.DependencyCycleError"}]
    [found] = replies.history(entry(START, CACHED, error))
    assert found.outcome is Outcome.ERROR
    assert found.failure is not None and found.failure.node_id == "2"


def test_an_entry_without_status_is_no_success() -> None:
    [found] = replies.history(body({"p": {"outputs": {}}}))
    assert (found.outcome, found.run_ms, found.submit_id) == (Outcome.ERROR, None, None)


def test_unknown_prompts_have_no_history() -> None:
    assert replies.history(b"{}") == ()


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"filename": "a", "subfolder": 7}], "subfolder is not text"),
        ([{"filename": "a", "type": None}], "type is not text"),
        ([{"filename": "a"}] * (FILES + 1), "limit"),
    ],
)
def test_files_that_cannot_be_had_are_a_failure_of_the_prompt(items: list[object], reason: str) -> None:
    [found] = replies.history(entry(START, outputs={"9": {"images": items}}))
    assert (found.outcome, found.files) == (Outcome.ERROR, ())
    assert found.failure is not None and reason in found.failure.exception_message


@pytest.mark.parametrize(
    ("said", "subfolder"),
    [(".", ""), ("./", ""), ("./a/./b//", "a/b"), (None, ""), ("/", "/"), ("/etc/.", "/etc"), ("../a", "../a")],
)
def test_a_folder_is_told_in_one_way(said: str | None, subfolder: str) -> None:
    items = [{"filename": "a.png", "subfolder": said, "type": "output"}]
    [found] = replies.history(entry(START, outputs={"9": {"images": items}}))
    assert [(file.subfolder, file.folder) for file in found.files] == [(subfolder, "output")]


def test_an_error_without_sense_is_still_an_error() -> None:
    [found] = replies.history(entry(START, ["execution_error", {}], status="error"))
    assert (found.outcome, found.failure) == (Outcome.ERROR, None)


def test_other_clients_strange_ids_do_not_hide_ours() -> None:
    strange = [[None, 7], [0, "\x1b[31m" + "x" * 300, {}, None, []], [1, "p"], [1e300, "last"], [-(2**60), "first"]]
    found = replies.queue(body({"queue_running": [], "queue_pending": strange}))
    assert [item.prompt_id for item in found.pending] == ["first", "x" * 199 + "…", "p", "last", ""]
    ended = {"\ud800": {}, "p": {"prompt": 7, "status": {"status_str": "success"}}}
    assert [e.prompt_id for e in replies.history(body(ended))] == ["\ufffd", "p"]


def test_upload_names() -> None:
    assert replies.uploaded(body({"name": "a.png", "subfolder": "", "type": "input"})) == "a.png"
    assert replies.uploaded(body({"name": "a (1).png", "subfolder": "x/y"})) == "x/y/a (1).png"
    with pytest.raises(ReplyError):
        replies.uploaded(body({"name": ""}))


def test_small_answers() -> None:
    assert replies.jobs_listing(body({"jobs": [], "pagination": {}}))
    assert not replies.jobs_listing(body([]))
    assert replies.cancelled(body({"cancelled": True}))
    assert not replies.cancelled(body({"cancelled": 1}))
    assert replies.object_info(b'{"A":{"x":NaN,"y":1e999,"z":1.5}}') == {"A": {"x": None, "y": None, "z": 1.5}}


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_a_reply_error(raw: bytes) -> None:
    with pytest.raises(ReplyError):
        replies.load(raw)


READERS: list[Callable[[bytes], object]] = [
    replies.system_stats,
    replies.object_info,
    replies.submitted,
    replies.uploaded,
    replies.queue,
    replies.history,
    replies.cancelled,
    replies.jobs_listing,
]
_keys = st.sampled_from(
    ["system", "devices", "argv", "prompt_id", "number", "node_errors", "queue_running", "queue_pending", "name"]
) | st.sampled_from(["p", "prompt", "outputs", "images", "filename", "subfolder", "type", "status", "messages"])
_values = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(READERS), st.binary() | _values.map(body))
def test_any_answer_gives_a_value_or_one_error(reader: Callable[[bytes], object], raw: bytes) -> None:
    try:
        reader(raw)
    except ReplyError as e:
        str(e).encode()
