"""What the simulator does as a server of late 2026, from that server's public sources: nothing of it was recorded."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.simulator.client import LONG, ask, eventually, flat, painting, post, run


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with running_simulator(version="0.45.2", speed=20) as started:
        yield started


def test_an_id_must_be_a_uuid_in_lower_case(simulator: SimulatorProcess) -> None:
    for wrong in ("mine", str(uuid.uuid4()).upper(), uuid.uuid4().hex, 5, ""):
        answer = ask(f"{simulator.url}/prompt", {"prompt": flat(), "prompt_id": wrong})
        assert answer.status == 400
        assert answer.json["error"]["type"] == "invalid_prompt_id"
    mine = str(uuid.uuid4())
    assert post(simulator.url, flat(1), prompt_id=mine) == mine
    assert uuid.UUID(post(simulator.url, flat(2), prompt_id=None))


def test_a_missing_class_has_an_error_of_its_own(simulator: SimulatorProcess) -> None:
    answer = ask(f"{simulator.url}/prompt", {"prompt": {"1": {"class_type": "Absent", "inputs": {}}}})
    assert answer.status == 400
    assert answer.json["error"]["type"] == "missing_node_type"


def test_keys_are_neither_in_the_queue_nor_in_the_history(simulator: SimulatorProcess) -> None:
    secret = {"api_key_comfy_org": "SECRET", "kept": 1}
    prompt_id = post(simulator.url, painting(steps=LONG), extra_data=secret)
    assert b"SECRET" not in ask(f"{simulator.url}/queue").body
    ask(f"{simulator.url}/interrupt", {"prompt_id": prompt_id})
    entry = eventually(lambda: ask(f"{simulator.url}/history/{prompt_id}").json.get(prompt_id), "the interrupt")
    assert "SECRET" not in str(entry)
    assert entry["prompt"][3]["kept"] == 1
    assert entry["prompt"][3]["create_time"] > 1_700_000_000_000


def job(simulator: SimulatorProcess, prompt_id: str) -> dict[str, Any]:
    return dict(ask(f"{simulator.url}/api/jobs/{prompt_id}").json)


def test_a_job_is_known_from_queue_to_history(simulator: SimulatorProcess) -> None:
    running = post(simulator.url, painting(seed=5, steps=LONG))
    waiting = post(simulator.url, flat(3), extra_data={"extra_pnginfo": {"workflow": {"id": "wf"}}})
    eventually(lambda: job(simulator, running)["status"] == "in_progress", "the first job to run")
    assert job(simulator, waiting)["status"] == "pending"
    assert job(simulator, waiting)["workflow_id"] == "wf"
    cancelled = ask(f"{simulator.url}/api/jobs/{running}/cancel", {})
    assert cancelled.json == {"cancelled": True}
    eventually(lambda: job(simulator, running)["status"] == "cancelled", "the cancel")
    eventually(lambda: job(simulator, waiting)["status"] == "completed", "the second job")
    done = job(simulator, waiting)
    assert (done["outputs_count"], done["previewable_outputs_count"]) == (1, 1)
    assert done["preview_output"]["nodeId"] == "2"
    assert done["execution_end_time"] >= done["execution_start_time"] >= done["create_time"]
    assert ask(f"{simulator.url}/api/jobs/{running}/cancel", {}).json == {"cancelled": False}


def test_a_waiting_job_is_cancelled_out_of_the_queue(simulator: SimulatorProcess) -> None:
    running, waiting = post(simulator.url, painting(seed=6, steps=LONG)), post(simulator.url, flat(4))
    batch = ask(f"{simulator.url}/api/jobs/cancel", {"job_ids": [waiting, running]})
    assert batch.json == {"cancelled": True}
    eventually(lambda: job(simulator, running)["status"] == "cancelled", "the cancel")
    assert ask(f"{simulator.url}/api/jobs/{waiting}").status == 404
    wrong = ask(f"{simulator.url}/api/jobs/cancel", {"job_ids": ["x"]})
    assert (wrong.status, wrong.json["invalid_ids"]) == (400, ["x"])


def test_a_failed_job_shows_its_error(simulator: SimulatorProcess) -> None:
    simulator.mischief("oom")
    prompt_id = post(simulator.url, painting("fails", seed=7))
    eventually(lambda: job(simulator, prompt_id)["status"] == "failed", "the failure")
    assert job(simulator, prompt_id)["execution_error"]["exception_type"] == "torch.OutOfMemoryError"


def test_jobs_are_listed_in_pages(simulator: SimulatorProcess) -> None:
    for colour in range(50, 54):
        run(simulator.url, flat(colour))
    first = ask(f"{simulator.url}/api/jobs?status=completed&limit=3").json
    assert len(first["jobs"]) == 3
    assert first["pagination"]["has_more"]
    times = [found["create_time"] for found in first["jobs"]]
    assert times == sorted(times, reverse=True)
    rest = ask(f"{simulator.url}/api/jobs?status=completed&offset=3").json
    assert not {found["id"] for found in rest["jobs"]} & {found["id"] for found in first["jobs"]}
    assert first["pagination"]["total"] == 3 + len(rest["jobs"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=done", "Invalid status value(s): done."),
        ("sort_by=name", "sort_by must be"),
        ("sort_order=up", "sort_order must be"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
def test_a_wrong_query_is_explained(simulator: SimulatorProcess, query: str, said: str) -> None:
    answer = ask(f"{simulator.url}/api/jobs?{query}")
    assert answer.status == 400
    assert said in answer.json["error"]


def test_a_page_of_another_site_is_refused(simulator: SimulatorProcess) -> None:
    assert ask(f"{simulator.url}/prompt", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert ask(f"{simulator.url}/prompt", headers={"Sec-Fetch-Site": "same-origin"}).status == 200


def test_results_outlive_a_prompt_between(simulator: SimulatorProcess) -> None:
    """Older servers keep only the previous prompt's."""
    first = run(simulator.url, flat(300, "kept"))
    run(simulator.url, flat(301, "kept"))
    assert run(simulator.url, flat(300, "kept"))["outputs"] == first["outputs"]
