"""Every command the README gives is run here as it stands there, from a checkout, so that none of them lies."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from scripts.fleet import ROOT, Fleet

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]

#: How each command is shown to work. A command that is in no list fails the last test.
HERE = {'scripts/demo --once "a lighthouse at dusk"'}
STARTED = {"scripts/demo", "scripts/start_broker", "scripts/start_web"}
KEYS = {
    "scripts/keys broker",
    "scripts/keys web",
    "scripts/keys worker gpu-1 --host broker.example",
    "scripts/keys token ada --admin",
}
HTTP = {command for command in COMMANDS if command.startswith("curl ")}
#: Run by tests of their own, or by whoever runs this one.
ELSEWHERE = {
    "scripts/test": ".ci/run",
    "scripts/check": ".ci/run",
    "scripts/chaos": "tests/process/test_measuring.py",
    "scripts/backup /mnt/backup": "tests/contract/store/test_backup.py",
    "scripts/bench": "tests/process/test_measuring.py",
    "scripts/demo --comfyui http://127.0.0.1:8188": "tests/process/test_demo.py",
    "scripts/start_worker --comfyui http://127.0.0.1:8188 --name gpu-1": "tests/process/test_demo.py",
}


def run(command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    words[0] = str(ROOT / words[0])
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=110, check=False, env={**os.environ, **environ}
    )


@pytest.mark.parametrize("command", sorted(HERE))
def test_a_command_does_what_it_says(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} --set steps=4 --set size=512x512", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "simulated" in ended.stdout
    saved = re.search(r"saved (\S+\.png)", ended.stdout)
    assert saved is not None
    assert Path(saved[1]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", sorted(STARTED))
def test_a_command_starts_and_stops(command: str, tmp_path: Path) -> None:
    sockets = {f"FLEET_NETWORK__{name}": "tcp://127.0.0.1:*" for name in ("CLIENTS", "WORKERS", "EVENTS", "FILES")}
    environ = {**os.environ, "FLEET_BROKER__DATA": str(tmp_path / "data")}
    if command == "scripts/start_broker":
        environ |= sockets
    if command == "scripts/start_web":
        environ["FLEET_WEB__PORT"] = "*"
    extra = ["--data", str(tmp_path)] if command == "scripts/demo" else []
    child = subprocess.Popen(
        [ROOT / command, *extra], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    )
    assert child.stdout is not None
    with child.stdout:
        said = ""
        while "ready" not in said and "open http" not in said:
            line = child.stdout.readline()
            assert line, f"{command} ended: {said}"
            said += line
        child.send_signal(signal.SIGTERM)
        child.stdout.read()
    assert child.wait(30) == 0


def test_the_keys_are_made_in_the_order_given(tmp_path: Path) -> None:
    environ = {"FLEET_SECURITY__KEYS": str(tmp_path / "keys")}
    said = ""
    for command in COMMANDS:
        if command in KEYS:
            ended = run(command, tmp_path, **environ)
            assert ended.returncode == 0, ended.stderr
            said += ended.stdout
    assert "secret_key = " in said
    assert "tcp://broker.example:5571" in said
    assert len(said.splitlines()[-1]) >= 40
    assert (tmp_path / "keys" / "tokens").read_text().startswith("ada ")


def test_the_calls_work_as_given(tmp_path: Path) -> None:
    with Fleet(tmp_path, workers=1, simulator=["--zero-work"]) as fleet:
        host = fleet.url.removeprefix("http://")
        for command in sorted(HTTP):
            words = shlex.split(command.replace("127.0.0.1:8080", host))
            ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            assert json.loads(ended.stdout).keys() & {"id", "jobs", "workers"}


def test_every_command_is_run_somewhere() -> None:
    known = HERE | STARTED | KEYS | HTTP | ELSEWHERE.keys()
    assert [command for command in COMMANDS if command not in known] == []
    assert known <= set(COMMANDS)
    for path in ELSEWHERE.values():
        assert (ROOT / path).exists(), path
