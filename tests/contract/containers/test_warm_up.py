"""warm_up.py against a ComfyUI stand-in: the first prompt, before any job's, and what is said when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfyui.simulator.journal import read_journal
from scripts.fleet import Process
from tests.contract.containers.compose import FOLDER


@contextmanager
def simulator(folder: Path, *flags: str) -> Iterator[str]:
    """The address of a running stand-in."""
    command = [sys.executable, "-m", "comfyui.simulator", "--port", "0", "--zero-work", *flags]
    process = Process("simulator", [*command, "--log", str(folder / "log.jsonl")], folder, os.environ)
    try:
        yield process.ready().split()[1]
    finally:
        process.kill()


def warm_up(url: str, prompt: str, done: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "containers" / "warm_up.py"), url, prompt, str(done)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_one_prompt_is_run_and_then_it_is_warm(tmp_path: Path) -> None:
    with simulator(tmp_path) as url:
        ended = warm_up(url, str(FOLDER / "warmup.json"), tmp_path / "warm")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "warm").exists()
    assert [entry["at"] for entry in read_journal(tmp_path / "log.jsonl")].count("started") == 1


def test_it_waits_for_a_comfyui_that_is_still_starting(tmp_path: Path) -> None:
    with simulator(tmp_path) as url:
        pass
    command = [sys.executable, str(FOLDER / "containers" / "warm_up.py"), url, "", str(tmp_path / "warm")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as waiting:
        port = url.rpartition(":")[2]
        with simulator(tmp_path, "--port", port):
            assert waiting.wait(60) == 0
    assert (tmp_path / "warm").exists()


def test_without_a_prompt_it_is_warm_when_it_answers(tmp_path: Path) -> None:
    with simulator(tmp_path) as url:
        assert warm_up(url, "", tmp_path / "warm").returncode == 0
    assert "started" not in [entry["at"] for entry in read_journal(tmp_path / "log.jsonl")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--models", "checkpoints/another.safetensors"), "refused: "),
        (("--mischief", json.dumps({"kind": "oom"})), "failed: "),
    ],
)
def test_a_failure_is_told_and_leaves_it_cold(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    with simulator(tmp_path, *flags) as url:
        ended = warm_up(url, str(FOLDER / "warmup.json"), tmp_path / "warm")
    assert ended.returncode == 1
    assert f"warmup.json: {said}" in ended.stderr
    assert "stays unhealthy" in ended.stderr
    assert not (tmp_path / "warm").exists()


@pytest.mark.parametrize("content", [None, "{"], ids=["no file", "not JSON"])
def test_a_prompt_file_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    prompt = tmp_path / "prompt.json"
    if content is not None:
        prompt.write_text(content)
    with simulator(tmp_path) as url:
        ended = warm_up(url, str(prompt), tmp_path / "warm")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"warm-up: {prompt}: ")
    assert "Traceback" not in ended.stderr
