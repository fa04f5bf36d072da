"""Attempts of a real worker process on a simulator: what the broker is told, and what ComfyUI really did."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

from PIL import Image

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Limits, Phase, ProgressKind, Reason
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
from comfyui.simulator.process import running_simulator
from tests.contract.worker.stage import (
    BrokerStandIn,
    SimulatedComfyUI,
    input_file,
    plain,
    previews,
    running_worker,
    sdxl,
)


def png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def test_a_picture_from_dispatch_to_recorded(at_work: BrokerStandIn) -> None:
    announced = at_work.first(Announce)
    assert announced.simulated and announced.worker == "w1" and announced.comfyui_version
    capabilities = at_work.first(Capabilities)
    assert "KSampler" in capabilities.nodes
    assert "checkpoints/juggernautXL_v8Rundiffusion.safetensors" in capabilities.models
    assert capabilities.digest == announced.capabilities
    assert "KSampler" in json.loads(at_work.stored(capabilities.digest))
    key = at_work.dispatch(sdxl("a lighthouse", steps=8))
    assert at_work.first(Accepted, key).prompt_id == prompt_id_for(*key)
    end = at_work.end(key)
    assert isinstance(end, Complete)
    (output,) = end.outputs
    assert (output.kind, output.media_type, output.node_id) == ("output", "image/png", "9")
    assert Image.open(io.BytesIO(at_work.stored(output.sha256))).size == (256, 256)
    reports = [report.progress for report in at_work.all(ProgressReport, key) if not report.image]
    assert reports[0].kind is ProgressKind.STARTED
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions) and fractions[-1] > 0.5
    assert previews(at_work, key)
    assert end.timings.running_ms > 0


def test_the_next_prompt_waits_in_comfyui_while_one_runs(at_work: BrokerStandIn) -> None:
    first = at_work.dispatch(long("one"))
    second = at_work.dispatch(sdxl("two", steps=1))
    at_work.first(Accepted, second)
    phases = {Phase.RUNNING, Phase.STAGED}
    at_work.until(lambda: {held.phase for held in at_work.all(Heartbeat)[-1].held} == phases)
    assert at_work.all(Ready)[-1].credits == 0
    cancel(at_work, first)
    assert isinstance(at_work.end(second), Complete)


def test_a_cached_prompt_delivers_its_old_file(at_work: BrokerStandIn) -> None:
    first, second = (at_work.end(at_work.dispatch(plain(0x123456))) for _ in range(2))
    assert isinstance(first, Complete) and isinstance(second, Complete)
    assert first.outputs == second.outputs


def test_each_picture_of_each_node_is_delivered(at_work: BrokerStandIn) -> None:
    graph = plain(1) | {
        "3": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 2}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "sub/three"}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    end = at_work.end(at_work.dispatch(graph))
    assert isinstance(end, Complete)
    assert sorted(output.node_id for output in end.outputs) == ["2", "4", "4", "4"]
    assert {output.kind for output in end.outputs} == {"output"}


def test_a_picture_is_delivered_under_whatever_name_a_workflow_may_give_it(at_work: BrokerStandIn) -> None:
    graph = plain(4)
    graph["2"]["inputs"]["filename_prefix"] = '日記/100% "yes" & it\'s; a=b+c#1?'
    end = at_work.end(at_work.dispatch(graph))
    assert isinstance(end, Complete), end
    assert [output.name for output in end.outputs] == ['100% "yes" & it\'s; a=b+c#1?_00001_.png']


def test_previews_are_the_result_of_a_workflow_that_saves_nothing(at_work: BrokerStandIn) -> None:
    graph = plain(3)
    graph["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    end = at_work.end(at_work.dispatch(graph))
    assert isinstance(end, Complete)
    assert [output.kind for output in end.outputs] == ["temp"]


def test_input_files_reach_the_workflow_and_travel_once(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    file = input_file(at_work, "my photo.PNG", png((200, 30, 30)))
    graph = plain(5)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "my photo.PNG"}}
    for _ in range(2):
        end = at_work.end(at_work.dispatch(graph, files=(file,)))
        assert isinstance(end, Complete)
        picture = Image.open(io.BytesIO(at_work.stored(end.outputs[0].sha256)))
        assert picture.convert("RGB").getpixel((1, 1)) == (200, 30, 30)
    names = [path.name for path in (comfyui.process.base / "input").iterdir() if file.sha256 in path.name]
    assert names == [f"fleet_{file.sha256}.png"]


def test_an_input_file_that_somebody_deleted_or_that_was_kept_cut_is_brought_again(
    at_work: BrokerStandIn, comfyui: SimulatedComfyUI
) -> None:
    file = input_file(at_work, "b.png", png((30, 200, 30)))
    kept = comfyui.process.base / "input" / f"fleet_{file.sha256}.png"
    graph = plain(5)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "b.png"}}
    kept.write_bytes(png((30, 200, 30))[:40])  # its disk was full, or it was killed in the middle
    assert isinstance(at_work.end(at_work.dispatch(graph, files=(file,))), Complete)
    for there in kept.parent.glob(f"fleet_{file.sha256}*"):
        there.unlink()  # nobody but people clears that folder
    assert isinstance(at_work.end(at_work.dispatch(graph, files=(file,))), Complete)
    assert kept.read_bytes() == png((30, 200, 30))


def test_a_missing_input_file_fails_the_attempt(at_work: BrokerStandIn) -> None:
    file = input_file(at_work, "a.png", png((1, 2, 3)))
    missing = type(file)(name="a.png", sha256="0" * 64, size_bytes=10)
    graph = plain(6)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    end = at_work.end(at_work.dispatch(graph, files=(missing,)))
    assert isinstance(end, Fail) and end.failure.reason is Reason.INPUT_MISSING


def test_outputs_the_store_has_lost_are_sent_again(at_work: BrokerStandIn, tmp_path: Path) -> None:
    at_work.records = False
    key = at_work.dispatch(plain(7))
    sha256 = at_work.first(Complete, key).outputs[0].sha256
    at_work.until(lambda: not at_work.store.unsettled)
    (tmp_path / "files" / sha256[:2] / sha256).unlink()
    assert not at_work.store.has(sha256)
    at_work.records = True
    at_work.say(OutputsMissing(job_id=key[0], attempt=key[1], missing=(sha256,)))
    at_work.next(Complete, key)
    assert at_work.store.has(sha256)


# ---- failures


def failure_of(broker: BrokerStandIn, graph: dict[str, Any]) -> Fail:
    end = broker.end(broker.dispatch(graph))
    assert isinstance(end, Fail)
    return end


def test_a_workflow_that_comfyui_refuses(at_work: BrokerStandIn) -> None:
    graph = plain(8)
    graph["1"]["inputs"]["width"] = -5
    failure = failure_of(at_work, graph).failure
    assert failure.reason is Reason.INVALID_WORKFLOW
    assert failure.node_id == "1" and "width" in failure.text


def test_a_workflow_of_which_only_a_part_would_run(at_work: BrokerStandIn) -> None:
    graph = plain(9)
    graph["3"] = {"class_type": "EmptyImage", "inputs": {"width": -1, "height": 8, "batch_size": 1, "color": 1}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}
    failure = failure_of(at_work, graph).failure
    assert failure.reason is Reason.INVALID_WORKFLOW and "only part" in failure.text


def test_a_node_that_raises(at_work: BrokerStandIn) -> None:
    file = input_file(at_work, "broken.png", b"this is no picture")
    graph = plain(10)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "broken.png"}}
    end = at_work.end(at_work.dispatch(graph, files=(file,)))
    assert isinstance(end, Fail) and end.failure.reason is Reason.NODE_ERROR
    assert (end.failure.node_id, end.failure.node_type) == ("1", "LoadImage")
    assert end.failure.traceback


def test_a_card_without_memory(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    comfyui.mischief("oom")
    assert failure_of(at_work, sdxl("too large")).failure.reason is Reason.OUT_OF_MEMORY
    assert isinstance(at_work.end(at_work.dispatch(sdxl("too large"))), Complete)


def test_a_poisoned_process_takes_no_more_until_it_is_started_anew(
    at_work: BrokerStandIn, comfyui: SimulatedComfyUI
) -> None:
    comfyui.mischief("cuda-poison")
    assert failure_of(at_work, sdxl("poison")).failure.reason is Reason.POISONED
    at_work.until(lambda: at_work.all(Ready)[-1].credits == 0)
    comfyui.process.kill()
    comfyui.process.restart()
    assert isinstance(at_work.end(at_work.dispatch(sdxl("poison"))), Complete)


# ---- taken back


def long(text: str) -> dict[str, Any]:
    """A minute of work, unless it is stopped."""
    return sdxl(text, steps=1_000, size=1024)


def cancel(broker: BrokerStandIn, key: tuple[str, int]) -> None:
    broker.say(CancelAttempt(job_id=key[0], attempt=key[1]))


def test_cancel_while_running(at_work: BrokerStandIn) -> None:
    key = at_work.dispatch(long("x"))
    at_work.first(ProgressReport, key)
    cancel(at_work, key)
    end = at_work.end(key)
    assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED


def test_cancel_while_staged_leaves_the_running_one_alone(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    first = at_work.dispatch(sdxl("one", steps=100, size=512))
    second = at_work.dispatch(sdxl("two"))
    at_work.first(Accepted, second)
    cancel(at_work, second)
    end = at_work.end(second)
    assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED
    assert isinstance(at_work.end(first), Complete)
    assert comfyui.started() == [prompt_id_for(*first)]


def test_cancel_too_late_completes(at_work: BrokerStandIn) -> None:
    at_work.records = False
    key = at_work.dispatch(plain(11))
    at_work.first(Complete, key)
    cancel(at_work, key)
    at_work.next(Heartbeat)
    at_work.next(Heartbeat)
    assert not at_work.all(Fail, key)


def test_abandon_stops_exactly_that_prompt_and_says_nothing_more(at_work: BrokerStandIn) -> None:
    key = at_work.dispatch(long("x"))
    at_work.first(ProgressReport, key)
    other = at_work.dispatch(plain(12))
    at_work.say(Abandon(job_id=key[0], attempt=key[1], why="test"))
    assert isinstance(at_work.end(other), Complete)
    assert not at_work.ended(key)
    assert all(held.job_id != key[0] for held in at_work.next(Heartbeat).held)


def test_the_limit_on_the_whole_run(at_work: BrokerStandIn) -> None:
    end = at_work.end(at_work.dispatch(long("x"), limits=Limits(start_to_close_ms=300, stall_ms=60_000, hung_ms=0)))
    assert isinstance(end, Fail) and end.failure.reason is Reason.TIMEOUT
    assert isinstance(at_work.end(at_work.dispatch(plain(13))), Complete)


def test_a_dispatch_without_room_is_left_to_the_broker(at_work: BrokerStandIn) -> None:
    first, second = at_work.dispatch(long("one")), at_work.dispatch(sdxl("two"))
    at_work.until(lambda: at_work.all(Ready)[-1].seen == 2)
    over = str(uuid.uuid4()), 1
    at_work.send(over, plain(14))
    at_work.until(lambda: at_work.all(Ready)[-1].seen == 3)
    cancel(at_work, first)
    assert isinstance(at_work.end(second), Complete)
    assert not at_work.all(Accepted, over) and not at_work.ended(over)


def assert_pictures_over_the_socket(broker: BrokerStandIn) -> None:
    graph = plain(4)
    graph["1"]["inputs"]["batch_size"] = 2
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    key = broker.dispatch(graph)
    end = broker.end(key)
    assert isinstance(end, Complete)
    names = [(output.kind, output.name) for output in end.outputs]
    assert names == [("socket", "2_00001.png"), ("socket", "2_00002.png")]
    assert not previews(broker, key)


def test_a_server_that_chooses_ids_and_interrupts_whatever_runs(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(version="0.3.34", speed=3.0) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        running = broker.dispatch(long("x"))
        assert broker.first(Accepted, running).prompt_id != prompt_id_for(*running)
        broker.first(ProgressReport, running)
        assert broker.room() == 0  # nothing is staged: an interrupt could hit it
        cancel(broker, running)
        end = broker.end(running)
        assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED
        assert_pictures_over_the_socket(broker)


def test_pictures_over_the_socket_are_outputs(at_work: BrokerStandIn) -> None:
    assert_pictures_over_the_socket(at_work)
