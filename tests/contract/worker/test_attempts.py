"""Attempts of a real worker process on a simulator: what the broker is told, and what ComfyUI really did."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Phase, ProgressKind, Reason
from broker.protocol.worker import (
    Abandon,
    Accepted,
    Announce,
    CancelAttempt,
    Capabilities,
    Complete,
    Fail,
    Heartbeat,
    OutputsMissing,
    ProgressReport,
    Ready,
)
from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.worker.stage import (
    LIMITS,
    BrokerStandIn,
    input_file,
    plain,
    previews,
    running_worker,
    sdxl,
    started,
)


def png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def test_a_picture_from_dispatch_to_recorded(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(speed=4.0) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        announced = broker.first(Announce)
        assert announced.simulated and announced.worker == "w1" and announced.comfyui_version
        capabilities = broker.first(Capabilities)
        assert "KSampler" in capabilities.nodes
        assert "checkpoints/juggernautXL_v8Rundiffusion.safetensors" in capabilities.models
        assert capabilities.digest == announced.capabilities
        assert "KSampler" in json.loads(broker.stored(capabilities.digest))
        key = broker.dispatch(sdxl("a lighthouse", steps=8))
        assert broker.first(Accepted, key).prompt_id == prompt_id_for(*key)
        end = broker.end(key)
        assert isinstance(end, Complete)
        (output,) = end.outputs
        assert (output.kind, output.media_type, output.node_id) == ("output", "image/png", "9")
        assert Image.open(io.BytesIO(broker.stored(output.sha256))).size == (256, 256)
        reports = [report.progress for report in broker.all(ProgressReport, key)]
        assert reports[0].kind is ProgressKind.STARTED
        fractions = [report.fraction for report in reports]
        assert fractions == sorted(fractions) and fractions[-1] > 0.8
        assert previews(broker, key)
        assert end.timings.running_ms > 0


def test_the_next_prompt_waits_in_comfyui_while_one_runs(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(speed=1.0) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        first = broker.dispatch(sdxl("one", steps=30))
        second = broker.dispatch(sdxl("two", steps=1))
        broker.first(Accepted, second)
        phases = {Phase.RUNNING, Phase.STAGED}
        broker.until(lambda: {held.phase for held in broker.all(Heartbeat)[-1].held} == phases)
        assert broker.all(Ready)[-1].credits == 0
        assert not broker.all(Complete, first)
        assert isinstance(broker.end(first), Complete)
        assert isinstance(broker.end(second), Complete)


def test_a_cached_prompt_delivers_its_old_file(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        ends = [broker.end(broker.dispatch(plain(0x123456))) for _ in range(2)]
        first, second = ends
        assert isinstance(first, Complete) and isinstance(second, Complete)
        assert first.outputs == second.outputs


def test_each_picture_of_each_node_is_delivered(broker: BrokerStandIn, tmp_path: Path) -> None:
    graph = plain(1) | {
        "3": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 2}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "sub/three"}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        end = broker.end(broker.dispatch(graph))
        assert isinstance(end, Complete)
        assert sorted(output.node_id for output in end.outputs) == ["2", "4", "4", "4"]
        assert {output.kind for output in end.outputs} == {"output"}


def test_previews_are_the_result_of_a_workflow_that_saves_nothing(broker: BrokerStandIn, tmp_path: Path) -> None:
    graph = plain(3)
    graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        end = broker.end(broker.dispatch(graph))
        assert isinstance(end, Complete)
        assert [output.kind for output in end.outputs] == ["temp"]


@pytest.mark.parametrize("version", ["0.3.34", "0.3.64"])
def test_pictures_over_the_socket_are_outputs(broker: BrokerStandIn, tmp_path: Path, version: str) -> None:
    graph = plain(4)
    graph["1"]["inputs"]["batch_size"] = 2
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    with running_simulator(version=version) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(graph)
        end = broker.end(key)
        assert isinstance(end, Complete)
        assert [(output.kind, output.name) for output in end.outputs] == [
            ("socket", "2_00001.png"),
            ("socket", "2_00002.png"),
        ]
        assert not previews(broker, key)


def test_input_files_reach_the_workflow_and_travel_once(broker: BrokerStandIn, tmp_path: Path) -> None:
    file = input_file(broker, "my photo.PNG", png((200, 30, 30)))
    graph = plain(5)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "my photo.PNG"}}
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        for _ in range(2):
            end = broker.end(broker.dispatch(graph, files=(file,)))
            assert isinstance(end, Complete)
            picture = Image.open(io.BytesIO(broker.stored(end.outputs[0].sha256)))
            assert picture.convert("RGB").getpixel((1, 1)) == (200, 30, 30)
        names = [path.name for path in (comfyui.base / "input").iterdir() if file.sha256 in path.name]
        assert names == [f"fleet_{file.sha256}.png"]


def test_a_missing_input_file_fails_the_attempt(broker: BrokerStandIn, tmp_path: Path) -> None:
    file = input_file(broker, "a.png", png((1, 2, 3)))
    missing = type(file)(name="a.png", sha256="0" * 64, size_bytes=10)
    graph = plain(6)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        end = broker.end(broker.dispatch(graph, files=(missing,)))
        assert isinstance(end, Fail) and end.failure.reason is Reason.INPUT_MISSING


def test_outputs_the_store_has_lost_are_sent_again(broker: BrokerStandIn, tmp_path: Path) -> None:
    broker.records = False
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(plain(7))
        end = broker.first(Complete, key)
        sha256 = end.outputs[0].sha256
        next((tmp_path / "files").rglob(f"*{sha256[4:]}*")).unlink()
        assert not broker.store.has(sha256)
        broker.records = True
        broker.say(OutputsMissing(job_id=key[0], attempt=key[1], missing=(sha256,)))
        broker.next(Complete, key)
        assert broker.store.has(sha256)


# ---- failures


def failure_of(broker: BrokerStandIn, graph: dict[str, Any]) -> Fail:
    end = broker.end(broker.dispatch(graph))
    assert isinstance(end, Fail)
    return end


def test_a_workflow_that_comfyui_refuses(broker: BrokerStandIn, tmp_path: Path) -> None:
    graph = plain(8)
    graph["1"]["inputs"]["width"] = -5
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        failure = failure_of(broker, graph).failure
        assert failure.reason is Reason.INVALID_WORKFLOW
        assert failure.node_id == "1" and "width" in failure.text


def test_a_workflow_of_which_only_a_part_would_run(broker: BrokerStandIn, tmp_path: Path) -> None:
    graph = plain(9)
    graph["3"] = {"class_type": "EmptyImage", "inputs": {"width": -1, "height": 8, "batch_size": 1, "color": 1}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        failure = failure_of(broker, graph).failure
        assert failure.reason is Reason.INVALID_WORKFLOW and "only part" in failure.text


def test_a_node_that_raises(broker: BrokerStandIn, tmp_path: Path) -> None:
    file = input_file(broker, "broken.png", b"this is no picture")
    graph = plain(10)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "broken.png"}}
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        end = broker.end(broker.dispatch(graph, files=(file,)))
        assert isinstance(end, Fail) and end.failure.reason is Reason.NODE_ERROR
        assert (end.failure.node_id, end.failure.node_type) == ("1", "LoadImage")
        assert end.failure.traceback


def test_a_card_without_memory(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(speed=50) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.first(Announce)
        comfyui.mischief("oom")
        assert failure_of(broker, sdxl("x")).failure.reason is Reason.OUT_OF_MEMORY
        assert isinstance(broker.end(broker.dispatch(sdxl("x"))), Complete)


def test_a_poisoned_process_takes_no_more_until_it_is_started_anew(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(speed=50) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("cuda-poison")
        assert failure_of(broker, sdxl("x")).failure.reason is Reason.POISONED
        broker.until(lambda: broker.all(Ready)[-1].credits == 0)
        comfyui.kill()
        comfyui.restart()
        assert isinstance(broker.end(broker.dispatch(sdxl("x"))), Complete)


# ---- taken back


def long(text: str) -> dict[str, Any]:
    """Seconds of work, unless it is stopped."""
    return sdxl(text, steps=200, size=1024)


def test_cancel_while_running(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(long("x"))
        broker.until(lambda: bool(broker.all(ProgressReport, key)))
        broker.say(CancelAttempt(job_id=key[0], attempt=key[1]))
        end = broker.end(key)
        assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED


@pytest.mark.parametrize("version", ["0.3.34", "0.3.64"])
def test_cancel_while_staged_leaves_the_running_one_alone(broker: BrokerStandIn, tmp_path: Path, version: str) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log, version=version) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        first = broker.dispatch(sdxl("one", steps=20, size=512))
        if version == "0.3.34":
            # An interrupt would hit whatever runs: nothing is staged in front of such a server.
            broker.first(Accepted, first)
            assert broker.room() == 0
            assert isinstance(broker.end(first), Complete)
            return
        second = broker.dispatch(sdxl("two"))
        broker.first(Accepted, second)
        broker.say(CancelAttempt(job_id=second[0], attempt=second[1]))
        end = broker.end(second)
        assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED
        assert isinstance(broker.end(first), Complete)
        assert started(log) == [prompt_id_for(*first)]


def test_cancel_too_late_completes(broker: BrokerStandIn, tmp_path: Path) -> None:
    broker.records = False
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(plain(11))
        broker.first(Complete, key)
        broker.say(CancelAttempt(job_id=key[0], attempt=key[1]))
        broker.next(Complete, key)
        assert not broker.all(Fail, key)


def test_abandon_stops_exactly_that_prompt_and_says_nothing_more(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(long("x"))
        broker.until(lambda: bool(broker.all(ProgressReport, key)))
        other = broker.dispatch(plain(12))
        broker.say(Abandon(job_id=key[0], attempt=key[1], why="test"))
        assert isinstance(broker.end(other), Complete)
        assert not broker.all(Fail, key) and not broker.all(Complete, key)
        assert all(held.job_id != key[0] for held in broker.next(Heartbeat).held)


def test_the_limit_on_the_whole_run(broker: BrokerStandIn, tmp_path: Path) -> None:
    limits = type(LIMITS)(start_to_close_ms=500, stall_ms=60_000)
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        end = broker.end(broker.dispatch(long("x"), limits=limits))
        assert isinstance(end, Fail) and end.failure.reason is Reason.TIMEOUT
        assert isinstance(broker.end(broker.dispatch(plain(13))), Complete)


def test_a_dispatch_without_room_is_left_to_the_broker(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url, broker__prefetch="0"):
        first = broker.dispatch(sdxl("one", steps=20, size=512))
        broker.first(Accepted, first)
        ready = broker.all(Ready)[-1]
        assert ready.credits == 0
        broker.until(lambda: broker.all(Ready)[-1].seen == 1)
        broker.dispatched = 0  # the stand-in forgets, and sends what nobody asked for
        over = str(uuid.uuid4())
        broker.say(dispatch_of(over))
        assert isinstance(broker.end(first), Complete)
        assert not [message for message in broker.heard if getattr(message, "job_id", "") == over]


def dispatch_of(job_id: str) -> Any:
    from broker.protocol.worker import Dispatch

    body = json.dumps(plain(14)).encode()
    return Dispatch(job_id=job_id, attempt=1, serial=2, files=(), limits=LIMITS, workflow=body)


__all__ = ["SimulatorProcess"]
