"""Where a job may run, until when, and why it ran where it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from broker.protocol import client
from broker.protocol.records import JobState
from tests.web.fake_broker import a_job
from tests.web.stage import Stage, staged
from tests.web.test_jobs import FORM, WORKFLOW, changed


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        stage.with_worker()
        yield stage


#: name -> (body, status, code, words the message must have).
REFUSED: dict[str, tuple[Any, int, str, str]] = {
    "a pin that is no name": ({"workflow": WORKFLOW, "pin": "a/b"}, 422, "bad_worker", "a/b"),
    "a pin that is a number": ({"workflow": WORKFLOW, "pin": 1}, 422, "bad_type", "pin"),
    "a deadline of 0": ({"workflow": WORKFLOW, "deadline_s": 0}, 422, "bad_deadline", "from 1 to"),
    "a deadline in a century": ({"workflow": WORKFLOW, "deadline_s": 3e9}, 422, "bad_deadline", "2592000"),
    "a deadline that is text": ({"workflow": WORKFLOW, "deadline_s": "1"}, 422, "bad_deadline", "seconds"),
    "a deadline that is true": ({"workflow": WORKFLOW, "deadline_s": True}, 422, "bad_deadline", "seconds"),
    "labels that are text": ({"workflow": WORKFLOW, "needs_labels": "a"}, 422, "bad_type", "needs_labels"),
    "33 needed labels": ({"workflow": WORKFLOW, "needs_labels": ["a"] * 33}, 422, "bad_labels", "needs_labels"),
    "an empty needed label": ({"workflow": WORKFLOW, "needs_labels": [""]}, 422, "bad_labels", "needs_labels"),
    "less memory than none": ({"workflow": WORKFLOW, "vram_bytes": -1}, 422, "bad_vram", "from 0 to"),
    "a card of 10^18 bytes": ({"workflow": WORKFLOW, "vram_bytes": 10**18}, 422, "bad_vram", "1099511627776"),
    "memory in parts of a byte": ({"workflow": WORKFLOW, "vram_bytes": 0.5}, 422, "bad_vram", "whole number"),
    "memory that is true": ({"workflow": WORKFLOW, "vram_bytes": True}, 422, "bad_vram", "whole number"),
    "memory that is text": ({"workflow": WORKFLOW, "vram_bytes": "8 GB"}, 422, "bad_vram", "bytes"),
    "a wait that is 1": ({"workflow": WORKFLOW, "wait_for_worker": 1}, 422, "bad_type", "true or false"),
}


def test_a_job_says_where_and_until_when_it_may_run(shared: Stage) -> None:
    wishes = {"pin": "gpu-7", "deadline_s": 90.5, "needs_labels": ["fast"], "wait_for_worker": True}
    wishes["vram_bytes"] = 16 << 30
    job = shared.post("/api/v1/jobs", {"workflow": WORKFLOW, **wishes}).json
    sent = shared.broker.submits[job["id"]]
    assert (sent.pin, sent.deadline_ms, sent.needs.labels, sent.wait_for_worker) == ("gpu-7", 90_500, ("fast",), True)
    assert sent.needs.vram_bytes == 16 << 30
    plain = shared.broker.submits[shared.post("/api/v1/jobs", {"workflow": WORKFLOW}).json["id"]]
    assert (plain.pin, plain.deadline_ms, plain.needs.labels, plain.wait_for_worker) == ("", None, (), False)
    assert plain.needs.vram_bytes == 0


def test_a_workflow_that_no_worker_has_everything_for_waits_only_if_it_may(shared: Stage) -> None:
    for lacking in (changed("3", class_type="NobodyHasThis"), changed("4", ckpt_name="nobody_has_this.safetensors")):
        assert shared.post("/api/v1/jobs", {"workflow": lacking}).status == 422
        assert shared.post("/api/v1/jobs", {"workflow": lacking, "wait_for_worker": True}).status == 202
    broken = {"workflow": changed("3", steps=-1), "wait_for_worker": True}
    assert shared.post("/api/v1/jobs", broken).status == 422, "no worker could ever run that"


def test_a_job_that_no_single_worker_can_run_is_refused_in_the_brokers_words(shared: Stage) -> None:
    shared.broker.refuse[client.Submit] = ("no_worker", "gpu-1, the nearest, lacks the model x", 0)
    answer = shared.post("/api/v1/jobs", FORM)
    assert (answer.status, answer.code) == (422, "no_worker") and "lacks the model x" in answer.json["error"]["message"]


def test_the_queue_in_numbers(stage: Stage) -> None:
    stage.broker.put(a_job(owner="ann"))
    stage.broker.put(a_job(owner="ann", state=JobState.RUNNING))
    assert stage.get("/api/v1/queue").json == {
        "owners": [{"owner": "ann", "queued": 1, "running": 1}],
        "models": [{"models": ["checkpoints/xl"], "queued": 1, "running": 1}],
        "paused": False,
    }


def test_the_story_of_a_job(shared: Stage) -> None:
    job = shared.broker.put(a_job())
    queued, leased = shared.get(f"/api/v1/jobs/{job.job_id}/story").json["lines"]
    assert queued["what"] == "queued" and queued["worker"] is None and queued["decision"] is None
    decision = leased["decision"]
    assert (decision["why"], decision["worker"], decision["waited_ms"]) == ("waited_for_models", "gpu-2", 4_000)
    assert [one["finish_ms"] for one in decision["candidates"]] == [5_000, 16_000]
    assert decision["candidates"][1]["missing_models"] == ["checkpoints/xl"]
    assert (decision["waited_for"], decision["instead"]) == ("gpu-2", "gpu-1")
    assert decision["words"] == "Waited 4.0 s for gpu-2, which holds xl; gpu-1 would have loaded it for 11.0 s"


def test_the_story_is_told_in_the_language_that_is_asked_for(shared: Stage) -> None:
    job = shared.broker.put(a_job())
    lines = shared.get(f"/api/v1/jobs/{job.job_id}/story", Accept_Language="zh-CN").json["lines"]
    assert lines[1]["decision"]["words"] == "等了 4.0 秒，等 gpu-2：它已加载 xl；换成 gpu-1 要加载 11.0 秒"


def test_a_job_is_pinned_and_moved(shared: Stage) -> None:
    job = shared.broker.put(a_job())
    assert shared.post(f"/api/v1/jobs/{job.job_id}/priority", {"priority": 9}).json["priority"] == 9
    assert shared.post(f"/api/v1/jobs/{job.job_id}/pin", {"worker": "worker-1"}).status == 202
    assert isinstance(shared.broker.heard[-1], client.Pin)
    for body in ({}, {"worker": 1}, {"worker": "a/b"}, {"worker": "a", "x": 1}):
        assert shared.post(f"/api/v1/jobs/{job.job_id}/pin", body).code == "bad_worker"
    for bad in ({}, {"priority": "1"}, {"priority": True}, {"priority": 101}):
        assert shared.post(f"/api/v1/jobs/{job.job_id}/priority", bad).code == "bad_priority"


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_wish_is_refused_and_changes_nothing(shared: Stage, name: str) -> None:
    body, status, code, words = REFUSED[name]
    before = len(shared.broker.jobs)
    answer = shared.post("/api/v1/jobs", body)
    assert (answer.status, answer.code) == (status, code)
    assert words in answer.json["error"]["message"]
    assert len(shared.broker.jobs) == before
