"""scripts/setup and scripts/start_* from the outside: what they mend, whose code they run, and what they take."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("process", ["broker", "web", "worker"])
def test_code_in_the_current_folder_is_not_run(process: str, tmp_path: Path) -> None:
    for name in (process, "zmq"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('from the current folder')\n")
    command = [str(SCRIPTS / f"start_{process}"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: start_{process}")


def test_the_broker_has_as_many_connections_as_it_may(tmp_path: Path) -> None:
    places = [f"--set=network.{name}=tcp://127.0.0.1:*" for name in ("clients", "workers", "events", "files")]
    command = [str(SCRIPTS / "start_broker"), f"--set=broker.data={tmp_path / 'data'}", *places]
    few = ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", *command]
    with subprocess.Popen(few, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as broker:
        assert broker.stdout is not None
        try:
            assert broker.stdout.readline().startswith("ready broker")
            soft, hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
        finally:
            broker.terminate()
    assert soft == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    assert broker.returncode == 0


def test_an_environment_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    def made(path: Path, does: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    checkout, python = tmp_path / "checkout", tmp_path / "checkout" / ".venv" / "bin" / "python"
    made(checkout / "scripts" / "setup", "")
    shutil.copy(SCRIPTS / "setup", checkout / "scripts" / "setup")
    for name in ("setup.cfg", "pyproject.toml"):
        (checkout / name).touch()
    made(python, "exit 1")  # Python is there, and no pip
    made(tmp_path / "whole", 'echo "$@" >>asked')
    made(
        tmp_path / "bin" / "python3", f'[ "$2" != venv ] || {{ echo "$@" >>asked; cp {tmp_path / "whole"} {python}; }}'
    )
    environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for _ in range(2):  # the second time there is nothing to do
        done = subprocess.run(
            [checkout / "scripts" / "setup"], env=environ, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0
    venv, install = (checkout / "asked").read_text().splitlines()
    assert venv == "-m venv --clear .venv"
    assert install.startswith("-m pip install") and install.endswith(".[simulator]")
