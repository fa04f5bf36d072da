"""The main job on real processes, and what dies meanwhile: nothing is lost and nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from scripts.fleet import Fleet, FleetFailed, Process
from tests.process.journal import begun, until

SLOW = ["--step-s", "0.4"]


def submit(fleet: Fleet, **params: Any) -> Any:
    return fleet.request(
        "POST", "/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "a pier", **params}}
    )


def job_of(fleet: Fleet, job: Any) -> Any:
    return fleet.request("GET", f"/api/v1/jobs/{job['id']}")


def running(fleet: Fleet, job: Any) -> Any:
    """The job once ComfyUI samples it."""

    def sampling() -> Any:
        now = job_of(fleet, job)
        return now if now["state"] == "running" and (now["progress"] or {}).get("value", 0) >= 1 else None

    return until(sampling, "the job to sample")


def test_a_picture_end_to_end(fleet: Fleet) -> None:
    done = fleet.wait(submit(fleet, seed=7)["id"])
    assert done["state"] == "succeeded"
    assert done["worker"] in ("worker-1", "worker-2")
    output = done["outputs"][0]
    with urllib.request.urlopen(fleet.url + output["url"], timeout=30) as answer:
        picture = answer.read()
        assert answer.headers["Content-Type"] == "image/png"
    assert picture.startswith(b"\x89PNG")
    assert len(picture) == output["size_bytes"]


def test_a_worker_killed_mid_prompt_carries_on_with_it(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        job = submit(fleet)
        running(fleet, job)
        fleet.processes["worker-1"].kill()
        fleet.start_worker(1)
        done = fleet.wait(job["id"])
        assert (done["state"], done["attempt"]) == ("succeeded", 1)
    assert list(begun(folder).values()) == [1]


def test_a_broker_killed_mid_prompt_takes_the_running_prompt_back(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        job = submit(fleet)
        running(fleet, job)
        fleet.processes["broker"].kill()
        fleet.start_broker()
        until(lambda: fleet.processes["web"].running() and fleet.request("GET", "/api/v1/workers"), "the broker")
        done = fleet.wait(job["id"])
        assert (done["state"], done["attempt"]) == ("succeeded", 1)
    assert list(begun(folder).values()) == [1]


def test_a_killed_web_is_back_with_everything(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        job = submit(fleet)
        fleet.processes["web"].kill()
        fleet.start_web()
        assert fleet.wait(job["id"])["state"] == "succeeded"


def test_a_killed_comfyui_costs_an_attempt_and_no_job(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        job = submit(fleet)
        running(fleet, job)
        fleet.processes["simulator-1"].kill()
        fleet.start_simulator(1)
        done = fleet.wait(job["id"], within_s=90)
        assert done["state"] == "succeeded"
        assert done["attempt"] >= 2


def test_a_cancelled_prompt_is_interrupted_and_the_next_one_runs(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        first, second = submit(fleet, seed=1), submit(fleet, seed=2)
        running(fleet, first)
        fleet.request("DELETE", f"/api/v1/jobs/{first['id']}")
        assert fleet.wait(first["id"])["state"] == "cancelled"
        assert fleet.wait(second["id"])["state"] == "succeeded"


def test_a_fleet_begins_before_a_comfyui_that_has_no_checkpoint(folder: Path) -> None:
    with Fleet(folder, workers=1, simulator=["--zero-work", "--models", "loras/style.safetensors"]) as fleet:
        blank = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
        workflow = {
            "1": {"class_type": "EmptyImage", "inputs": blank},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}},
        }
        sent = fleet.request("POST", "/api/v1/jobs", {"workflow": workflow})
        assert fleet.wait(sent["id"])["state"] == "succeeded"


def test_every_process_stops_cleanly_when_asked(folder: Path) -> None:
    with Fleet(folder, workers=1) as fleet:
        fleet.wait(submit(fleet)["id"])
        for name in ("worker-1", "web", "broker"):
            fleet.processes[name].signal(signal.SIGTERM)
            assert fleet.processes[name].wait() == 0, f"{name}: {fleet.processes[name].tail()}"


def test_a_second_broker_on_the_same_data_exits_and_says_who_has_it(fleet: Fleet, folder: Path) -> None:
    data = str(folder / "data")
    flags = [
        f"--set={key}={value}" for key, value in {"broker.data": data, "network.clients": "tcp://127.0.0.1:*"}.items()
    ]
    second = subprocess.run(
        [sys.executable, "-m", "broker", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "another broker" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_fleet_at_work_ends_when_it_is_told_to(folder: Path) -> None:
    """A worker finishes what runs, but not for nobody."""
    with Fleet(folder, workers=1, simulator=SLOW) as fleet:
        running(fleet, submit(fleet, steps=150))
    ends = {name: process.child.returncode for name, process in fleet.processes.items()}
    assert ends["broker"] == ends["web"] == 0
    assert ends["worker-1"] != -signal.SIGKILL


def test_a_process_that_says_no_more_before_it_is_ready_is_over_when_that_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, time; os.close(1); time.sleep(1)"]
    process = Process("slow to end", command, tmp_path, os.environ)
    with pytest.raises(FleetFailed, match="slow to end did not start"):
        process.ready()
    assert not process.running()
    process.wait()
