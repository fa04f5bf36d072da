"""scripts/start_* from the outside: whose code they run."""

from __future__ import annotations

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
