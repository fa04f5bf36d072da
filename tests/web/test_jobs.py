"""Jobs through the API: what is accepted, what every bad workflow is answered with, and what then happens to them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from broker.protocol import client
from broker.protocol.records import JobState
from tests.web.fake_broker import a_failure, a_job, an_output
from tests.web.stage import OBJECT_INFO, PATIENCE_S, Stage, staged

WORKFLOW: dict[str, Any] = json.loads(Path("comfyui/templates/text-to-image/workflow.json").read_text())
SEEDLESS = {
    **{node: parts for node, parts in WORKFLOW.items() if node != "3"},
    "8": {**WORKFLOW["8"], "inputs": {**WORKFLOW["8"]["inputs"], "samples": ["5", 0]}},
}
FORM = {"template": "text-to-image", "params": {"prompt": "a lighthouse"}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        stage.with_worker()
        yield stage


def submits(stage: Stage) -> list[client.Submit]:
    return [asked for asked in stage.broker.heard if isinstance(asked, client.Submit)]


def changed(node: str, **inputs: Any) -> dict[str, Any]:
    """The workflow with some inputs of a node set; a key of the node itself as `class_type`."""
    workflow: dict[str, Any] = json.loads(json.dumps(WORKFLOW))
    if "class_type" in inputs:
        workflow[node]["class_type"] = inputs.pop("class_type")
    workflow[node]["inputs"].update(inputs)
    return workflow


# ---- accepted


def test_a_workflow_is_queued_with_what_it_needs(shared: Stage) -> None:
    answer = shared.post("/api/v1/jobs", {"workflow": WORKFLOW, "title": "dusk", "labels": ["night"], "priority": 5})
    job = answer.json
    assert answer.status == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["state"], job["owner"], job["title"], job["labels"], job["priority"]) == (
        "queued", "local", "dusk", ["night"], 5,
    )  # fmt: skip
    sent = shared.broker.submits[job["id"]]
    assert json.loads(sent.workflow) == WORKFLOW
    assert sent.needs.models == ("checkpoints/juggernautXL_v8Rundiffusion.safetensors",)
    assert "KSampler" in sent.needs.nodes
    assert (sent.needs.pixels, sent.needs.steps) == (1024 * 1024, 20)


def test_a_filled_template_is_queued_and_its_form_is_kept(shared: Stage) -> None:
    params = {"prompt": "a lighthouse at dusk", "steps": 7, "seed": 2**63, "size": "512x768"}
    job = shared.post("/api/v1/jobs", {"template": "text-to-image", "params": params}).json
    assert (job["title"], job["template"]) == ("a lighthouse at dusk", "text-to-image")
    whole = shared.get(f"/api/v1/jobs/{job['id']}").json
    assert whole["form"]["template"] == "text-to-image"
    kept = whole["form"]["params"]
    assert kept.items() >= params.items()
    assert (kept["cfg"], kept["checkpoint"]) == (8, "juggernautXL_v8Rundiffusion.safetensors")  # the defaults too
    sampler, latent = whole["workflow"]["3"]["inputs"], whole["workflow"]["5"]["inputs"]
    assert (sampler["steps"], sampler["seed"]) == (7, 2**63)
    assert (latent["width"], latent["height"]) == (512, 768)


def test_a_prompt_that_turns_the_writing_round_is_taken_and_its_title_leaves_the_marks_out(shared: Stage) -> None:
    prompt = "a\u202e lighthouse\u200f\n  at\tdusk \u2066<b>\u2069"
    job = shared.post("/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": prompt}}).json
    assert job["title"] == "a lighthouse at dusk <b>"
    assert json.loads(shared.broker.submits[job["id"]].workflow)["6"]["inputs"]["text"] == prompt


def test_a_workflow_of_200_kb_is_accepted(shared: Stage) -> None:
    large = {**WORKFLOW, **{f"n{number}": WORKFLOW["6"] for number in range(1_200)}}
    assert len(json.dumps(large)) > 200_000
    assert shared.post("/api/v1/jobs", {"workflow": large}).status == 202


def test_without_a_worker_a_whole_workflow_waits(stage: Stage) -> None:
    answer = stage.post("/api/v1/jobs", {"workflow": changed("3", class_type="NobodyHasThis")})
    assert answer.status == 202
    assert stage.post("/api/v1/jobs", {"workflow": changed("3", model=["99", 0])}).status == 422


def test_a_job_may_be_given_its_id(shared: Stage) -> None:
    job_id = str(uuid.uuid4())
    answers = [shared.post("/api/v1/jobs", {**FORM, "id": job_id}) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert {answer.json["id"] for answer in answers} == {job_id}


# ---- once


def test_the_same_key_and_body_is_the_same_job(shared: Stage) -> None:
    answers = [shared.post("/api/v1/jobs", FORM, Idempotency_Key="once") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json["id"] == answers[1].json["id"]
    other = shared.post(
        "/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "b"}}, Idempotency_Key="once"
    )
    assert (other.status, other.code) == (409, "conflict")


def test_fifty_at_once_with_one_key_are_one_job(shared: Stage) -> None:
    posts = [gevent.spawn(shared.post, "/api/v1/jobs", FORM, Idempotency_Key="fifty") for _ in range(50)]
    answers = [post.get(timeout=PATIENCE_S) for post in posts]
    assert sorted(answer.status for answer in answers) == [200] * 49 + [202]
    assert len({answer.json["id"] for answer in answers}) == 1


def test_without_a_key_each_post_is_a_job_with_a_seed_of_its_own(shared: Stage) -> None:
    jobs = [shared.post("/api/v1/jobs", FORM).json["id"] for _ in range(2)]
    seeds = {json.loads(shared.broker.submits[job].workflow)["3"]["inputs"]["seed"] for job in jobs}
    assert len(set(jobs)) == len(seeds) == 2
    assert all(0 <= seed < 2**53 for seed in seeds)


@pytest.mark.parametrize("key", ["x" * 201, "a b", "é"])
def test_a_bad_key_is_400(shared: Stage, key: str) -> None:
    before = len(submits(shared))
    answer = shared.post("/api/v1/jobs", FORM, Idempotency_Key=key)
    assert (answer.status, answer.code) == (400, "bad_key")
    assert len(submits(shared)) == before


# ---- refused

UI_FORMAT = {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}
DEEP = "[" * 100 + "]" * 100

#: name -> (body, status, code, words the message must have).
REFUSED: dict[str, tuple[Any, int, str, str]] = {
    "nothing": (b"", 400, "not_json", ""),
    "not JSON": (b"{", 400, "not_json", ""),
    "null": (b"null", 400, "not_json", "object"),
    "a list": (b"[]", 400, "not_json", "object"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400, "not_json", "byte order mark"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), 400, "not_json", ""),
    "bad UTF-8": (b'{"workflow":"\xff"}', 400, "not_json", "UTF-8"),
    "NaN": (b'{"priority":NaN,"workflow":{}}', 400, "not_json", "NaN"),
    "1e999": (b'{"priority":1e999,"workflow":{}}', 400, "not_json", "too large"),
    "a number of 5000 digits": (b'{"priority":' + b"1" * 5_000 + b"}", 400, "not_json", "64 bits"),
    "depth 45000": (b'{"workflow":' + b"[" * 45_000 + b"]" * 45_000 + b"}", 400, "not_json", "deep"),
    "a key twice": (b'{"workflow":{},"workflow":{}}', 400, "not_json", "twice"),
    "neither workflow nor template": ({}, 422, "want_one", "either"),
    "workflow and template": ({"workflow": WORKFLOW, **FORM}, 422, "want_one", "either"),
    "an unknown key": ({"workflow": WORKFLOW, "prioritty": 1}, 422, "unknown_key", "prioritty"),
    "an unknown template": ({"template": "nothing", "params": {}}, 422, "unknown_template", "text-to-image"),
    "an unknown field": ({"template": "text-to-image", "params": {"promt": "a"}}, 422, "unknown_field", "promt"),
    "no prompt": ({"template": "text-to-image", "params": {}}, 422, "bad_field", "prompt"),
    "an over-long prompt": (
        {"template": "text-to-image", "params": {"prompt": "x" * 10_001}}, 413, "bad_field", "10000",
    ),
    "a prompt that is a number": ({"template": "text-to-image", "params": {"prompt": 1}}, 422, "bad_field", "text"),
    "a prompt with a NUL": ({"template": "text-to-image", "params": {"prompt": "a\0"}}, 400, "bad_text", "NUL"),
    "a prompt with half a surrogate": (
        b'{"template":"text-to-image","params":{"prompt":"\\ud800"}}', 400, "bad_text", "surrogate",
    ),
    "steps as text": (
        {"template": "text-to-image", "params": {"prompt": "a", "steps": "7"}}, 422, "bad_field", "whole number",
    ),
    "a million steps": (
        {"template": "text-to-image", "params": {"prompt": "a", "steps": 10**6}}, 422, "bad_field", "150",
    ),
    "seed -1": ({"template": "text-to-image", "params": {"prompt": "a", "seed": -1}}, 400, "bad_field", "seed"),
    "seed 1.5": ({"template": "text-to-image", "params": {"prompt": "a", "seed": 1.5}}, 400, "bad_field", "seed"),
    "seed 2^64": (b'{"template":"text-to-image","params":{"seed":18446744073709551616}}', 400, "not_json", "64 bits"),
    "params as a list": ({"template": "text-to-image", "params": []}, 422, "bad_type", "params"),
    "the editor's own format": ({"workflow": UI_FORMAT}, 422, "ui_format", "Export (API)"),
    "an empty workflow": ({"workflow": {}}, 400, "not_a_workflow", "no nodes"),
    "a workflow that is text": ({"workflow": "x"}, 400, "not_a_workflow", "object"),
    "a deep workflow": (b'{"workflow":{"1":' + DEEP.encode() + b"}}", 400, "bad_text", "deeper"),
    "a node without a class": ({"workflow": {"1": {"inputs": {}}}}, 422, "bad_node", "class_type"),
    "a link to nowhere": ({"workflow": changed("3", model=["99", 0])}, 422, "missing_link", "'99'"),
    "a link to itself": ({"workflow": changed("3", latent_image=["3", 0])}, 422, "cycle", "own node"),
    "a cycle": (
        {"workflow": changed("6", clip=["7", 0]) | {"7": changed("7", clip=["6", 0])["7"]}}, 422, "cycle", "->",
    ),
    "a slot that is not there": ({"workflow": changed("3", model=["4", 7])}, 422, "unknown_slot", "output 7"),
    "an unknown node": ({"workflow": changed("3", class_type="KSampler2")}, 422, "unknown_node", "KSampler"),
    "an unknown model": (
        {"workflow": changed("4", ckpt_name="juggernaut.safetensors")}, 422, "unknown_model",
        "juggernautXL_v8Rundiffusion.safetensors",
    ),
    "an unknown sampler": ({"workflow": changed("3", sampler_name="heunn")}, 422, "unknown_choice", "heun"),
    "no output node": ({"workflow": {"4": WORKFLOW["4"]}}, 422, "no_output", "SaveImage"),
    "a missing input": (
        {"workflow": {**WORKFLOW, "9": {"class_type": "SaveImage", "inputs": {}}}}, 422, "missing_input", "required",
    ),
    "a seed in a workflow": ({"workflow": changed("3", seed=-1)}, 400, "bad_seed", "node 3"),
    "a batch of a million": ({"workflow": changed("5", batch_size=10**6)}, 422, "value_too_large", "4096"),
    "width 0": ({"workflow": changed("5", width=0)}, 422, "value_too_small", "16"),
    "steps as a word": ({"workflow": changed("3", steps="many")}, 422, "not_a_number", "steps"),
    "a prefix out of its folder": ({"workflow": changed("9", filename_prefix="../x")}, 422, "bad_path", ".."),
    "an absolute prefix": ({"workflow": changed("9", filename_prefix="/etc/x")}, 422, "bad_path", "absolute"),
    "a picture out of its folder": (
        {"workflow": {**WORKFLOW, "10": {"class_type": "LoadImage", "inputs": {"image": "../../etc/passwd"}}}},
        422, "bad_path", "..",
    ),
    "a picture of another folder": (
        {"workflow": {**WORKFLOW, "10": {"class_type": "LoadImage", "inputs": {"image": "x.png [output]"}}}},
        422, "bad_path", "output",
    ),
    "a text of a megabyte": ({"workflow": changed("6", text="x" * 1_000_000)}, 413, "text_too_long", "100000"),
    "priority 10^9": ({"workflow": WORKFLOW, "priority": 10**9}, 422, "bad_priority", "100"),
    "priority as text": ({"workflow": WORKFLOW, "priority": "1"}, 422, "bad_type", "priority"),
    "priority true": ({"workflow": WORKFLOW, "priority": True}, 422, "bad_type", "priority"),
    "count 0": ({**FORM, "count": 0}, 422, "bad_count", "1 to 64"),
    "count 65": ({**FORM, "count": 65}, 422, "bad_count", "1 to 64"),
    "count true": ({**FORM, "count": True}, 422, "bad_type", "whole number"),
    "a group of one": ({**FORM, "group": str(uuid.uuid4())}, 422, "bad_id", "2 or more"),
    "a group with a job's id": ({**FORM, "count": 2, "id": str(uuid.uuid4())}, 422, "bad_id", "give group"),
    "a group that is no UUID": ({**FORM, "count": 2, "group": "G"}, 422, "bad_id", "UUID"),
    "two of what has no seed": ({"workflow": SEEDLESS, "count": 2}, 422, "no_seed", "the same"),
    "33 labels": ({"workflow": WORKFLOW, "labels": ["a"] * 33}, 422, "bad_labels", "32"),
    "a label of two lines": ({"workflow": WORKFLOW, "labels": ["a\nb"]}, 422, "bad_text", "one line"),
    "a title of 501": ({"workflow": WORKFLOW, "title": "x" * 501}, 422, "bad_text", "500"),
    "an id that is none": ({"workflow": WORKFLOW, "id": "7"}, 422, "bad_id", "UUID"),
    "files that are no list": ({"workflow": WORKFLOW, "files": {}}, 422, "bad_type", "files"),
    "a file without a digest": ({"workflow": WORKFLOW, "files": [{"name": "a.png"}]}, 422, "bad_files", "sha256"),
    "a file out of its folder": (
        {"workflow": WORKFLOW, "files": [{"name": "../a.png", "sha256": "0" * 64}]}, 422, "bad_path", "..",
    ),
    "a digest that is none": (
        {"workflow": WORKFLOW, "files": [{"name": "a.png", "sha256": "x"}]}, 422, "bad_files", "64",
    ),
    "a name twice": (
        {"workflow": WORKFLOW, "files": [{"name": "a.png", "sha256": "0" * 64}] * 2}, 422, "bad_files", "twice",
    ),
    "a file nobody stored": (
        {"workflow": WORKFLOW, "files": [{"name": "a.png", "sha256": "0" * 64}]}, 422, "missing_file", "upload",
    ),
    "257 files": ({"workflow": WORKFLOW, "files": [{"name": "a.png", "sha256": "0" * 64}] * 257}, 422, "bad_files", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_and_changes_nothing(shared: Stage, name: str) -> None:
    body, status, code, words = REFUSED[name]
    before = len(submits(shared))
    answer = shared.post("/api/v1/jobs", body, Content_Type="application/json")
    assert (answer.status, answer.code) == (status, code), answer.body
    assert words in answer.json["error"]["message"]
    assert len(submits(shared)) == before


def test_a_refusal_names_node_input_and_every_further_problem(shared: Stage) -> None:
    workflow = changed("5", width=0, height=0)
    details = shared.post("/api/v1/jobs", {"workflow": workflow}).json["error"]["details"]
    assert (details["node_id"], details["input"]) == ("5", "height")
    assert [problem["input"] for problem in details["problems"]] == ["height", "width"]


def test_a_full_queue_is_503_with_retry_after_and_a_quota_429(shared: Stage) -> None:
    for code, status in (("full", 503), ("quota", 429)):
        shared.broker.refuse[client.Submit] = (code, "no room", 5_000)
        answer = shared.post("/api/v1/jobs", FORM)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (status, code, "5")


def test_a_fleet_with_other_models_is_given_one_of_them(stage: Stage) -> None:
    other = json.loads(json.dumps(OBJECT_INFO))
    other["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [["other.safetensors"]]
    stage.with_worker(other)
    job = stage.post("/api/v1/jobs", FORM).json
    assert json.loads(stage.broker.submits[job["id"]].workflow)["4"]["inputs"]["ckpt_name"] == "other.safetensors"
    templates = {one["name"]: one for one in stage.get("/api/v1/templates").json["templates"]}
    template = templates["text-to-image"]
    model = next(field for field in template["fields"] if field["type"] == "model")
    assert (model["default"], model["choices"]) == ("other.safetensors", ["other.safetensors"])
    assert template["runnable"]


def test_a_template_that_no_worker_can_run_says_why(stage: Stage) -> None:
    stage.with_worker({name: fields for name, fields in OBJECT_INFO.items() if name != "KSampler"})
    template = stage.get("/api/v1/templates/text-to-image").json
    assert not template["runnable"]
    assert "KSampler" in template["why_not"]
    assert stage.get("/api/v1/templates/nothing").code == "not_found"


# ---- afterwards


def test_a_job_that_is_not_there_is_404(shared: Stage) -> None:
    calls: list[Callable[[str], Any]] = [
        lambda job: shared.get(f"/api/v1/jobs/{job}"),
        lambda job: shared.delete(f"/api/v1/jobs/{job}"),
        lambda job: shared.get(f"/api/v1/jobs/{job}/story"),
        lambda job: shared.get(f"/api/v1/jobs/{job}/events"),
        lambda job: shared.post(f"/api/v1/jobs/{job}/retry"),
        lambda job: shared.post(f"/api/v1/jobs/{job}/pin", {"worker": "w"}),
        lambda job: shared.post(f"/api/v1/jobs/{job}/priority", {"priority": 1}),
        lambda job: shared.get(f"/api/v1/tasks/{job}"),
        lambda job: shared.delete(f"/api/v1/tasks/{job}"),
    ]
    for job in (str(uuid.uuid4()), "7", "%2e%2e", "x" * 500):
        for call in calls:
            answer = call(job)
            assert (answer.status, answer.code) == (404, "not_found")


def test_a_cancel_cancels_and_a_second_one_is_409(shared: Stage) -> None:
    job = shared.broker.put(a_job())
    answer = shared.delete(f"/api/v1/jobs/{job.job_id}")
    assert (answer.status, answer.json["state"], answer.json["can"]) == (
        202, "cancelled", {"cancel": False, "retry": True},
    )  # fmt: skip
    again = shared.delete(f"/api/v1/jobs/{job.job_id}")
    assert (again.status, again.code) == (409, "finished")


def test_a_failed_job_says_why_and_may_be_tried_again(shared: Stage) -> None:
    job = shared.broker.put(a_job(state=JobState.FAILED, failure=a_failure("out of paint"), attempt=1))
    told = shared.get(f"/api/v1/jobs/{job.job_id}").json
    assert told["error"] == {
        "reason": "node_error", "message": "out of paint", "node_id": "3", "node_type": "KSampler", "traceback": "",
    }  # fmt: skip
    assert told["can"] == {"cancel": False, "retry": True}
    answer = shared.post(f"/api/v1/jobs/{job.job_id}/retry")
    assert (answer.status, answer.json["state"], answer.json["error"]) == (202, "queued", None)
    assert shared.post(f"/api/v1/jobs/{job.job_id}/retry").status == 409


@pytest.mark.parametrize("body", [b"{}", b"", None])
def test_a_call_without_a_body_takes_none_or_an_empty_one(shared: Stage, body: bytes | None) -> None:
    headers = {"Content-Type": "application/json"} if body else {}
    assert shared.request("POST", "/api/v1/queue/pause", body, headers).status == 202
    assert shared.post("/api/v1/queue/resume", {"surprise": 1}).status == 422
    assert shared.post("/api/v1/queue/resume", b"x=1", Content_Type="application/x-www-form-urlencoded").status == 415


def test_workers_are_paused_resumed_drained_probed_and_restarted(shared: Stage) -> None:
    for verb, kind in (
        ("pause", client.Pause),
        ("resume", client.Resume),
        ("drain", client.DrainWorker),
        ("probe", client.ProbeWorker),
        ("restart", client.RestartWorker),
    ):
        answer = shared.post(f"/api/v1/workers/worker-1/{verb}")
        assert (answer.status, answer.json) == (202, {"done": True})
        assert isinstance(shared.broker.heard[-1], kind)
        assert shared.post(f"/api/v1/workers/nobody/{verb}").code == "not_found"
        assert shared.post(f"/api/v1/workers/a%20b/{verb}").code == "not_found"
    assert shared.get("/api/v1/workers").json["workers"][0]["name"] == "worker-1"


# ---- the short face


def test_a_prompt_becomes_a_task(shared: Stage) -> None:
    body = {
        "prompt": "a lighthouse", "negative_prompt": "people", "width": 512, "height": 640, "steps": 4, "seed": 7,
        "count": 2,
    }  # fmt: skip
    answer = shared.post("/api/v1/generate", body)
    assert answer.status == 202
    assert answer.json.keys() == {"taskId", "status"} and answer.json["status"] == "pending"
    workflow = json.loads(shared.broker.submits[answer.json["taskId"]].workflow)
    assert workflow["5"]["inputs"] == {"width": 512, "height": 640, "batch_size": 2}
    assert (workflow["3"]["inputs"]["seed"], workflow["3"]["inputs"]["steps"]) == (7, 4)
    assert (workflow["6"]["inputs"]["text"], workflow["7"]["inputs"]["text"]) == ("a lighthouse", "people")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (JobState.QUEUED, "pending"),
        (JobState.LEASED, "pending"),
        (JobState.RUNNING, "running"),
        (JobState.CANCELLING, "running"),
        (JobState.SUCCEEDED, "succeeded"),
        (JobState.FAILED, "failed"),
        (JobState.CANCELLED, "cancelled"),
    ],
)
def test_a_task_has_one_of_five_states(shared: Stage, state: JobState, status: str) -> None:
    failure = a_failure() if state is JobState.FAILED else None
    job = shared.broker.put(a_job(state=state, failure=failure, outputs=(an_output(b"x"),)))
    task = shared.get(f"/api/v1/tasks/{job.job_id}").json
    assert task["status"] == status
    assert task["error"] == ("it broke" if failure else None)
    assert task["progress"] == (1.0 if status == "succeeded" else 0.0)
    assert len(task["images"]) == (1 if status == "succeeded" else 0)


def test_a_task_is_cancelled(shared: Stage) -> None:
    made = shared.post("/api/v1/generate", {"prompt": "a"}).json
    answer = shared.delete(f"/api/v1/tasks/{made['taskId']}")
    assert (answer.status, answer.json["status"]) == (202, "cancelled")
    assert shared.delete(f"/api/v1/tasks/{made['taskId']}").status == 409


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_field"),
        ({"prompt": ""}, 422, "bad_field"),
        ({"prompt": "a", "colour": "red"}, 422, "unknown_key"),
        ({"prompt": "a", "width": "512"}, 422, "bad_size"),
        ({"prompt": "a", "width": 10**9}, 422, "bad_size"),
        ({"prompt": "a", "width": 513}, 422, "bad_field"),
        ({"prompt": "a", "count": 99}, 422, "bad_field"),
        ({"prompt": "a", "seed": -1}, 400, "bad_field"),
        ({"prompt": "a\0"}, 400, "bad_text"),
    ],
)
def test_a_bad_task_is_refused(shared: Stage, body: Any, status: int, code: str) -> None:
    answer = shared.post("/api/v1/generate", body)
    assert (answer.status, answer.code) == (status, code)


def test_a_task_with_a_key_is_made_once(shared: Stage) -> None:
    answers = [shared.post("/api/v1/generate", {"prompt": "a"}, Idempotency_Key="task") for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json["taskId"] == answers[1].json["taskId"]
