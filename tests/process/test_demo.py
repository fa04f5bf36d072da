"""The demo on a ComfyUI that runs already, and a worker started by hand: as the README has it, on another port."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comfyui.simulator.process import running_simulator
from scripts.fleet import ROOT, Fleet
from tests.process.journal import until

DEMO = ROOT / "scripts" / "demo"


def test_the_demo_drives_the_comfyui_it_is_given(tmp_path: Path) -> None:
    with running_simulator(zero_work=True) as comfyui:
        ended = subprocess.run(
            [DEMO, "--comfyui", comfyui.url, "--once", "a pier", "--output", tmp_path / "pier.png"],
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"ComfyUI: {comfyui.url}" in ended.stdout
    assert (tmp_path / "pier.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_says_when_no_comfyui_answers() -> None:
    ended = subprocess.run(
        [DEMO, "--comfyui", "http://127.0.0.1:9"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "http://127.0.0.1:9" in ended.stderr


def test_an_empty_prompt_is_refused_before_anything_starts() -> None:
    ended = subprocess.run([DEMO, "--once", " "], capture_output=True, text=True, timeout=110, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("demo: --once wants the words of a picture") and ended.stderr.count("\n") == 1


def test_why_the_fleet_refuses_a_job_is_told_in_words() -> None:
    with running_simulator(zero_work=True) as comfyui:
        ended = subprocess.run(
            [DEMO, "--comfyui", comfyui.url, "--once", "a pier", "--set", "steps=0"],
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("demo: the fleet refused the job: ") and "steps" in line.lower() and "{" not in line


def test_the_demo_outlives_a_simulator_and_says_how_another_process_ended(tmp_path: Path) -> None:
    child = subprocess.Popen([DEMO, "--data", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stderr is not None
    with child.stdout, child.stderr, ended(child):
        address = next(line for line in child.stdout if line.startswith("open http://")).split()[1]
        part(child, "comfyui.simulator").kill()
        assert "simulator-1 ended by itself (killed by signal 9, Killed; its log: " in child.stderr.readline()

        def alive() -> dict[str, bool | None]:
            with urllib.request.urlopen(f"{address}/api/v1/workers", timeout=30) as answer:
                workers = json.loads(answer.read())["workers"]
            return {worker["name"]: (worker["stats"] or {}).get("comfy_alive") for worker in workers}

        until(lambda: alive() == {"worker-1": False, "worker-2": True}, "the fleet to notice")
        part(child, "web").kill()
        said = child.stderr.readline()
        assert f"demo: web ended by itself (killed by signal 9, Killed; its log: {tmp_path / 'web.log'})" in said
        assert child.wait(60) == 1


@contextlib.contextmanager
def ended(demo: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens inside, the demo does not outlive it, and what it started does not outlive the demo."""
    try:
        yield
    finally:
        if demo.poll() is None:
            demo.kill()


def part(demo: subprocess.Popen[str], module: str) -> psutil.Process:
    """The first process of the demo that runs this module."""
    children = psutil.Process(demo.pid).children()
    return next(one for one in children if one.cmdline()[1:3] == ["-m", module])


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_pictures_of_the_demo_do_not_show_as_changes_and_nothing_else_is_hidden() -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False).stdout

    assert git("check-ignore", f"{uuid.uuid4()}-1.png").endswith("-1.png\n")
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == ""


def test_the_demo_opens_its_page_elsewhere_when_something_listens_where_one_looks_for_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # something else listens there already, which is as good
            other.bind(("127.0.0.1", 8080))
            other.listen()
        child = subprocess.Popen([DEMO, "--workers", "1", "--data", tmp_path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout, ended(child):
            address = next(line for line in child.stdout if line.startswith("open http://")).split()[1]
            assert not address.endswith(":8080")
            with urllib.request.urlopen(f"{address}/api/v1/templates/text-to-image", timeout=30) as answer:
                assert json.loads(answer.read())["why_not"] == ""
            child.send_signal(signal.SIGTERM)
            child.stdout.read()
            assert child.wait(30) == 0


def test_a_worker_started_by_hand_joins_the_fleet(tmp_path: Path) -> None:
    with Fleet(tmp_path, workers=1, simulator=["--zero-work"]) as fleet:
        command = [str(ROOT / "scripts" / "start_worker"), "--comfyui", fleet.comfyuis[0], "--name", "gpu-1"]
        network = [
            flag for name in ("workers", "files") for flag in ("--set", f"network.{name}={fleet.endpoint(name)}")
        ]
        child = subprocess.Popen([*command, *network], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline().startswith("ready worker name=gpu-1")
            both = {"worker-1", "gpu-1"}
            until(
                lambda: {w["name"] for w in fleet.request("GET", "/api/v1/workers")["workers"]} == both, "the workers"
            )
            child.terminate()
        assert child.wait(30) == 0
