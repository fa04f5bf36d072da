"""scripts/test runs its parts side by side, tells each whole, and leaves nothing behind; Python is only played here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from scripts.fleet import ROOT
from tests.process.journal import until

#: What each part's command names.
PARTS = ("tests/web", "tests/browser", "tests/process", "tests/contract", "--ignore=tests/contract")
PYTHON = """#!/bin/sh
for word; do case $word in --basetemp=*) echo "$word" >> "$0-files" ;; *) last=$word ;; esac; done
[ "$2" = compileall ] && exit
echo "$last begins"
sleep $LASTS_S &
trap "kill $!; echo '$last is cut short'; exit 2" INT
touch "$0-began-$$"
wait $!
echo "$last ends"
[ "$last" != "$FAILS" ]
"""


def made(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made(tmp_path / "scripts" / "setup", "#!/bin/sh\n")
    made(tmp_path / ".venv" / "bin" / "python", PYTHON)
    made(tmp_path / "node_modules" / "axe-core" / "axe.min.js", "")
    made(tmp_path / "bin" / "nproc", "#!/bin/sh\necho $PROCESSORS\n")
    shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts" / "test")
    return tmp_path


def started(checkout: Path, *, processors: int, lasts_s: float, fails: str = "") -> subprocess.Popen[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PROCESSORS": str(processors), "LASTS_S": str(lasts_s), "FAILS": fails}
    # Ctrl-C means something here, even where whoever runs these tests does not listen to it.
    command = ["env", "--default-signal=INT", str(checkout / "scripts" / "test")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("fails", ["", *PARTS])
def test_each_part_is_told_whole_and_one_that_fails_is_enough(checkout: Path, processors: int, fails: str) -> None:
    with started(checkout, processors=processors, lasts_s=0.1, fails=fails) as run:
        told, _ = run.communicate(timeout=60)
    assert told.splitlines() == [f"{part} {word}" for part in PARTS for word in ("begins", "ends")]
    assert run.returncode == (1 if fails else 0)
    files = (checkout / ".venv" / "bin" / "python-files").read_text().split()
    assert len(set(files)) == len(PARTS), "each part has a place of its own for files"
    assert not any(Path(file.partition("=")[2]).parent.exists() for file in files)


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_part_ends_what_it_does_when_a_person_has_seen_enough(
    checkout: Path, processors: int, number: signal.Signals
) -> None:
    begun = PARTS if processors > 1 else PARTS[:1]
    with started(checkout, processors=processors, lasts_s=50) as run:
        until(lambda: len(list((checkout / ".venv" / "bin").glob("*-began-*"))) == len(begun), "the parts to begin")
        run.send_signal(number)
        told, _ = run.communicate(timeout=60)
    assert {part for part in PARTS if f"{part} is cut short" in told} == set(begun)
    assert "ends" not in told
    assert run.returncode == 130
