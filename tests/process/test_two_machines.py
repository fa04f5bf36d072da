"""A worker on another machine, as an operator sets it up: scripts/keys, one file, one command; and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.fleet import ROOT, Process
from tests.process.hosts import NEAR_ADDRESS, two_hosts
from tests.process.journal import until

SETTINGS = f"""
[network]
clients = tcp://{NEAR_ADDRESS}:5570
workers = tcp://{NEAR_ADDRESS}:5571
events = tcp://{NEAR_ADDRESS}:5572
files = tcp://{NEAR_ADDRESS}:5573
[broker]
heartbeat = 300 ms
lease = 2 s
[security]
curve = yes
"""
#: One JSON call of the API, made on the host where it runs: method, URL, body.
CALL = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[2], sys.argv[3].encode() or None, {"Content-Type": "application/json"})
request.method = sys.argv[1]
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


class Host:
    """One of the two machines: starts processes on it and ends them."""

    def __init__(self, prefix: list[str], folder: Path) -> None:
        self._prefix = prefix
        self._folder = folder
        self._started: list[Process] = []

    def start(self, name: str, *arguments: str) -> Process:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = Process(name, [*self._prefix, sys.executable, "-m", *arguments], self._folder, environ)
        self._started.append(process)
        return process

    def call(self, method: str, url: str, body: Any = None) -> Any:
        command = [*self._prefix, sys.executable, "-c", CALL, method, url, "" if body is None else json.dumps(body)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    def cable(self, state: str) -> None:
        """up, or down: what is sent meanwhile is lost, and nobody is told that a connection has ended."""
        subprocess.run([*self._prefix, "ip", "link", "set", self._prefix[-1], state], check=True)

    def stop(self) -> None:
        for process in reversed(self._started):
            process.kill()


@contextmanager
def hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts() as (near, far):
        here, there = Host(near, folder), Host(far, folder)
        try:
            yield here, there
        finally:
            there.stop()
            here.stop()


def served(here: Host, config: Path) -> tuple[Process, str]:
    """A broker, and the URL of a web process."""
    broker = here.start("broker", "broker", "--config", str(config))
    broker.ready()
    return broker, here.start("web", "web", "--config", str(config), "--port", "*").ready().split("url=")[1].split()[0]


def states(here: Host, url: str) -> list[str]:
    return [worker["state"] for worker in here.call("GET", f"{url}/api/v1/workers")["workers"]]


def job_in(here: Host, url: str, job: Any, *wanted: str) -> Any:
    """The job, once it is in one of these states."""
    now = here.call("GET", f"{url}/api/v1/jobs/{job['id']}")
    return now if now["state"] in wanted else None


def made_by_keys(config: Path, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "keys"), "--config", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.ini"
    path.write_text(SETTINGS)
    made_by_keys(path, "broker")
    made_by_keys(path, "web")
    for name in ("gpu-1", "stranger"):
        (tmp_path / f"{name}.ini").touch(0o600)
        (tmp_path / f"{name}.ini").write_text(made_by_keys(path, "worker", name))
    made_by_keys(path, "revoke", "stranger")
    return path


def test_a_worker_elsewhere_draws_a_picture_and_is_cut_off_when_its_key_is(config: Path, tmp_path: Path) -> None:
    with hosts(tmp_path) as (here, there):
        broker, url = served(here, config)
        comfyui = there.start("simulator", "comfyui.simulator", "--port", "0", "--zero-work").ready().split()[1]

        stranger = there.start("stranger", "worker", "--config", str(tmp_path / "stranger.ini"), "--comfyui", comfyui)
        until(lambda: "refused a connection" in broker.log.read_text(), "the stranger to be refused")
        assert states(here, url) == []
        until(lambda: "refuses this worker's key" in stranger.log.read_text(), "the stranger to know what may be wrong")
        stranger.kill()

        liar = there.start(
            "liar", "worker", "--config", str(tmp_path / "gpu-1.ini"), "--name", "gpu-2", "--comfyui", comfyui
        )
        assert liar.wait() == 2
        assert "gpu-2" in liar.tail().splitlines()[-1]

        gpu_1 = there.start("gpu-1", "worker", "--config", str(tmp_path / "gpu-1.ini"), "--comfyui", comfyui)
        gpu_1.ready()
        job = here.call("POST", f"{url}/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "a pier"}})

        done = until(lambda: job_in(here, url, job, "succeeded", "failed", "cancelled"), "the picture")
        assert (done["state"], done["worker"]) == ("succeeded", "gpu-1")

        made_by_keys(config, "revoke", "gpu-1")

        until(lambda: states(here, url) == ["lost"], "the worker to be cut off")
        # Which of the two it hears is chance: that its key is gone, when it speaks before the cut, or nothing any more.
        until(
            lambda: any(
                said in gpu_1.log.read_text() for said in ("not allowed any more", "refuses this worker's key")
            ),
            "the worker to say what is wrong",
        )
        broker.signal(signal.SIGTERM)
        assert broker.wait() == 0


def test_what_is_drawn_while_the_cable_is_cut_is_delivered_when_it_is_mended(config: Path, tmp_path: Path) -> None:
    with hosts(tmp_path) as (here, there):
        _, url = served(here, config)
        simulator = "comfyui.simulator", "--port", "0", "--step-s", "0.4", "--load-s", "0"
        comfyui = there.start("simulator", *simulator).ready().split()[1]
        gpu_1 = there.start("gpu-1", "worker", "--config", str(tmp_path / "gpu-1.ini"), "--comfyui", comfyui)
        gpu_1.ready()

        job = here.call("POST", f"{url}/api/v1/jobs", {"template": "text-to-image", "params": {"prompt": "a pier"}})
        until(lambda: job_in(here, url, job, "running"), "the job to run")
        before = len(gpu_1.log.read_text())
        there.cable("down")
        until(lambda: states(here, url) == ["lost"], "the worker to be missed")
        assert job_in(here, url, job, "queued")
        until(lambda: "dialling anew" in gpu_1.log.read_text()[before:], "the worker to miss the broker")
        until(lambda: there.call("GET", f"{comfyui}/history"), "the picture to be drawn")
        there.cable("up")
        done = until(lambda: job_in(here, url, job, "succeeded", "failed"), "the picture")
        assert (done["state"], done["worker"], done["attempt"]) == ("succeeded", "gpu-1", 1)
        assert len(there.call("GET", f"{comfyui}/history")) == 1
        until(lambda: states(here, url) == ["ready"], "the worker to be ready")
