"""scripts/start_* from the outside: whose code they run, and what they take of the system."""

from __future__ import annotations

import resource
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
