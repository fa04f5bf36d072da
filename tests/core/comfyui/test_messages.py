import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import messages
from comfyui.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    FeatureFlags,
    Message,
    MessageError,
    NodeProgress,
    Preview,
    Progress,
    ProgressState,
    ProgressText,
    Status,
    Unknown,
    parse,
)
from comfyui.outputs import OutputFile
from tests.core.comfyui.strategies import any_text, json_values

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"


def said(kind: str, **data: object) -> Message:
    return parse(json.dumps({"type": kind, "data": data}))


def framed(kind: int, *parts: bytes) -> bytes:
    return struct.pack(">I", kind) + b"".join(parts)


def sized(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("status", {"status": {"exec_info": {"queue_remaining": 2}}}, Status(2, None)),
        ("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "ab"}, Status(0, "ab")),
        (
            "feature_flags",
            {"supports_preview_metadata": True, "max_upload_size": 104857600.0},
            FeatureFlags(True, 104857600),
        ),
        ("feature_flags", {}, FeatureFlags(False, None)),
        ("execution_start", {"prompt_id": "p", "timestamp": 1}, ExecutionStart("p")),
        ("execution_cached", {"nodes": [], "prompt_id": "p"}, ExecutionCached("p", ())),
        ("execution_cached", {"nodes": ["4", "5"], "prompt_id": "p"}, ExecutionCached("p", ("4", "5"))),
        ("executing", {"node": "3", "display_node": "3", "prompt_id": "p"}, Executing("p", "3")),
        ("executing", {"node": None, "prompt_id": "p"}, Executing("p", None)),
        ("executing", {"node": "3"}, Executing(None, "3")),
        ("progress", {"value": 1, "max": 4, "prompt_id": "p", "node": "3"}, Progress("p", "3", 1, 4)),
        ("progress", {"value": 9, "max": 4, "prompt_id": "p", "node": "3"}, Progress("p", "3", 4, 4)),
        (
            "progress_state",
            {"prompt_id": "p", "nodes": {"3": {"value": 1.0, "max": 4, "state": "running", "activity": 1}}},
            ProgressState("p", (NodeProgress("3", "running", 1.0, 4),)),
        ),
        ("executed", {"node": "9", "output": None, "prompt_id": "p"}, Executed("p", "9")),
        (
            "executed",
            {"node": "9", "output": {"images": [{"filename": "a.png", "type": "temp"}]}, "prompt_id": "p"},
            Executed("p", "9", (OutputFile("9", "images", "a.png", "", "temp"),)),
        ),
        ("execution_success", {"prompt_id": "p"}, ExecutionSuccess("p")),
        ("execution_interrupted", {"prompt_id": "p", "node_id": "3"}, ExecutionInterrupted("p", "3")),
        ("logs", {"entries": [], "size": 1}, Unknown("logs")),
        ("etn_workflow_published", {}, Unknown("etn_workflow_published")),
    ],
)
def test_each_json_message(kind: str, data: dict[str, object], message: Message) -> None:
    assert said(kind, **data) == message


def test_an_unknown_type_needs_no_data() -> None:
    assert parse('{"type":"pysssss.ping","data":7}') == Unknown("pysssss.ping")


def test_an_error_carries_what_a_person_needs_and_no_more() -> None:
    message = said(
        "execution_error",
        prompt_id="p",
        node_id="1",
        node_type="LoadImage",
        executed=[],
        exception_message="\x1b[31mcannot identify image file\n" + "x" * 1_000_000,
        exception_type="PIL.UnidentifiedImageError",
        traceback=['  File "x.py", line 1\n'] * 1000,
        current_inputs={"image": ["broken.png"]},
    )
    assert isinstance(message, ExecutionError)
    assert message.exception_message.startswith("cannot identify image file\nxxx")
    assert len(message.exception_message) == 2_000
    assert len(message.traceback) == messages.TRACEBACK_LINES
    assert not message.out_of_memory and not message.cuda_broken


@pytest.mark.parametrize(
    ("kind", "text", "out_of_memory", "cuda_broken"),
    [
        ("torch.OutOfMemoryError", "Allocation on device 0", True, False),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory.", True, False),
        ("RuntimeError", "x\nThis error means you ran out of memory on your GPU.\n", True, False),
        ("RuntimeError", "alloc_cpu.cpp: DefaultCPUAllocator: can't allocate memory: you tried", True, False),
        ("RuntimeError", "CUDA error: device-side assert triggered", False, True),
        ("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered", False, True),
        ("ValueError", "wrong shape", False, False),
    ],
)
def test_the_errors_that_need_another_card_or_a_restart(
    kind: str, text: str, out_of_memory: bool, cuda_broken: bool
) -> None:
    message = said("execution_error", prompt_id="p", exception_type=kind, exception_message=text)
    assert isinstance(message, ExecutionError)
    assert (message.out_of_memory, message.cuda_broken) == (out_of_memory, cuda_broken)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("status", {}),
        ("status", {"status": {"exec_info": {"queue_remaining": -1}}}),
        ("status", {"status": {"exec_info": {"queue_remaining": True}}}),
        ("execution_start", {}),
        ("execution_start", {"prompt_id": 7}),
        ("execution_start", {"prompt_id": "x" * 201}),
        ("execution_start", {"prompt_id": "a\x1b[31mb"}),
        ("execution_cached", {"prompt_id": "p"}),
        ("execution_cached", {"prompt_id": "p", "nodes": [[]]}),
        ("executing", {"node": 3, "prompt_id": "p"}),
        ("progress", {"value": float("nan"), "max": 4}),
        ("progress", {"value": 1, "max": float("inf")}),
        ("progress", {"value": -1, "max": 4}),
        ("progress", {"value": 1, "max": 10**400}),
        ("progress_state", {"prompt_id": "p", "nodes": {"3": {"value": 1}}}),
        ("progress_state", {"prompt_id": "p", "nodes": []}),
    ],
)
def test_nonsense_in_a_known_message_is_an_error(kind: str, data: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        said(kind, **data)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"type":7}', '{"type":"status"}', "{" * 100_000, "[" * 5000])
def test_text_that_is_no_message_is_an_error(text: str) -> None:
    with pytest.raises(MessageError):
        parse(text)


def test_a_huge_text_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="limit"):
        parse(" " * (messages.TEXT_BYTES + 1))


def test_binary_messages() -> None:
    metadata = json.dumps({"node_id": "3", "prompt_id": "p", "image_type": "image/jpeg"}).encode()
    assert parse(framed(1, b"\0\0\0\1", JPEG)) == Preview(None, None, "image/jpeg", JPEG)
    assert parse(framed(1, b"\0\0\0\2", PNG)) == Preview(None, None, "image/png", PNG)
    assert parse(framed(4, sized(metadata), PNG)) == Preview("p", "3", "image/png", PNG)
    assert parse(framed(3, sized(b"12"), "Wörter".encode())) == ProgressText("12", "Wörter")
    assert parse(framed(9, b"anything")) == Unknown("binary 9")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0\0",
        framed(1),
        framed(1, b"\0\0\0\1", b"<html>"),
        framed(3, b"\0\0\1\0", b"short"),
        framed(3, b"\xff\xff\xff\xff", b"x"),
        framed(4, sized(b"{"), JPEG),
        framed(4, sized(b"[" * 5000), JPEG),
        framed(4, sized(b"[]"), JPEG),
        framed(4, sized(b'{"prompt_id":7}'), JPEG),
        framed(4, sized(b" " * (messages.METADATA_BYTES + 1)), JPEG),
    ],
)
def test_broken_binary_is_an_error(frame: bytes) -> None:
    with pytest.raises(MessageError):
        parse(frame)


def total(frame: str | bytes) -> None:
    try:
        message = parse(frame)
    except MessageError:
        return
    repr(message).encode()


@given(st.binary(max_size=64) | st.builds(framed, st.integers(0, 5), st.binary(max_size=64)))
def test_any_bytes_give_a_message_or_one_error(frame: bytes) -> None:
    total(frame)


@given(any_text)
def test_any_text_gives_a_message_or_one_error(frame: str) -> None:
    total(frame)


_types = st.sampled_from(sorted(messages._JSON_TYPES))
_keys = st.sampled_from(
    ["prompt_id", "node", "nodes", "value", "max", "status", "sid", "traceback", "exception_message", "node_id"]
)


@given(_types, st.dictionaries(_keys, json_values))
def test_any_fields_give_a_message_or_one_error(kind: str, data: dict[str, object]) -> None:
    total(json.dumps({"type": kind, "data": data}))
