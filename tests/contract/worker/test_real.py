"""The worker in front of a real ComfyUI, where COMFYFLEET_COMFYUI_URL names one that is idle and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.records import Reason, Resume
from broker.protocol.worker import Accepted, Announce, CancelAttempt, Capabilities, Complete, Fail, ProgressReport
from tests.contract.worker.stage import (
    LIMITS,
    BrokerStandIn,
    WorkerProcess,
    input_file,
    plain,
    previews,
    running_worker,
    sdxl,
)

URL = os.environ.get("COMFYFLEET_COMFYUI_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="COMFYFLEET_COMFYUI_URL names no ComfyUI")
#: On a processor a prompt may have to load its model first.
SLOW_S = 90.0


@pytest.fixture
def worker(broker: BrokerStandIn, tmp_path: Path) -> Iterator[WorkerProcess]:
    with running_worker(tmp_path, broker, URL, broker__lease="10 s") as process:
        broker.lease_ms = 10_000
        broker.until(lambda: broker.room() > 0)
        yield process


@pytest.fixture
def sampled(broker: BrokerStandIn, worker: WorkerProcess) -> Any:
    """A text to image workflow with the first checkpoint there is."""
    models = broker.first(Capabilities).models
    checkpoints = [model.removeprefix("checkpoints/") for model in models if model.startswith("checkpoints/")]
    if not checkpoints:
        pytest.skip("this ComfyUI has no checkpoint")

    def graph(text: str, steps: int) -> dict[str, Any]:
        made = sdxl(text, steps=steps, size=64)
        made["4"]["inputs"]["ckpt_name"] = checkpoints[0]
        return made

    return graph


@pytest.mark.usefixtures("worker")
def test_a_picture_without_a_model(broker: BrokerStandIn) -> None:
    assert not broker.first(Announce).simulated
    end = broker.end(broker.dispatch(plain(0x102030)), SLOW_S)
    assert isinstance(end, Complete)
    assert broker.stored(end.outputs[0].sha256).startswith(b"\x89PNG")


def test_a_sampled_picture_with_progress_and_previews(broker: BrokerStandIn, sampled: Any) -> None:
    key = broker.dispatch(sampled("a lighthouse", 20))
    end = broker.end(key, SLOW_S)
    assert isinstance(end, Complete) and len(end.outputs) == 1
    fractions = [report.progress.fraction for report in broker.all(ProgressReport, key)]
    assert fractions == sorted(fractions) and fractions[-1] > 0.5
    assert previews(broker, key)


@pytest.mark.usefixtures("worker")
def test_pictures_over_the_socket(broker: BrokerStandIn) -> None:
    graph = plain(0x405060)
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    end = broker.end(broker.dispatch(graph), SLOW_S)
    if isinstance(end, Fail) and end.failure.reason is Reason.INVALID_WORKFLOW:
        pytest.skip("this ComfyUI has no SaveImageWebsocket")
    assert isinstance(end, Complete) and [output.kind for output in end.outputs] == ["socket"]


@pytest.mark.usefixtures("worker")
def test_a_picture_that_cannot_be_read(broker: BrokerStandIn) -> None:
    graph = plain(0)
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "broken.png"}}
    end = broker.end(broker.dispatch(graph, files=(input_file(broker, "broken.png", b"no picture"),)), SLOW_S)
    assert isinstance(end, Fail) and end.failure.reason is Reason.NODE_ERROR and end.failure.node_id == "1"


def test_cancel(broker: BrokerStandIn, sampled: Any) -> None:
    key = broker.dispatch(sampled("cancelled", 2_000))
    broker.until(lambda: any(report.progress.value > 1 for report in broker.all(ProgressReport, key)), SLOW_S)
    broker.say(CancelAttempt(job_id=key[0], attempt=key[1]))
    end = broker.end(key, SLOW_S)
    assert isinstance(end, Fail) and end.failure.reason is Reason.CANCELLED


def test_a_killed_worker_carries_on(broker: BrokerStandIn, worker: WorkerProcess, sampled: Any) -> None:
    # So many that it still runs when the worker is back, and has ended in time: a good card does 15 to 20 a second.
    steps = 40 if broker.first(Announce).gpu.kind == "cpu" else 150
    key = broker.dispatch(sampled("carried on", steps))
    broker.until(lambda: any(report.progress.value > 1 for report in broker.all(ProgressReport, key)), SLOW_S)
    worker.kill()
    prompt_id = broker.first(Accepted, key).prompt_id
    broker.resume = (Resume(job_id=key[0], attempt=key[1], prompt_id=prompt_id, cancelling=False, limits=LIMITS),)
    before = len(broker.all(ProgressReport, key))
    worker.start()
    end = broker.end(key, SLOW_S)
    assert isinstance(end, Complete) and end.outputs
    assert len(broker.all(ProgressReport, key)) > before
    assert {accepted.prompt_id for accepted in broker.all(Accepted, key)} == {prompt_id}
