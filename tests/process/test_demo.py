"""The demo on a ComfyUI that runs already, and a worker started by hand: as the README has it, on another port."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

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


def test_the_demo_opens_its_page_elsewhere_when_something_listens_where_one_looks_for_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # something else listens there already, which is as good
            other.bind(("127.0.0.1", 8080))
            other.listen()
        child = subprocess.Popen(
            [DEMO, "--workers", "1", "--data", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert child.stdout is not None
        with child.stdout:
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
