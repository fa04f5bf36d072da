"""A broker's life with its Nth system call failing, or being its last: whatever was said before is true of the disk.

For N = 1, 2, … until the life ends well, in steps in CI; FLEET_ANOMALIES=all tries every N. Needs strace.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from broker.protocol.records import JobState
from broker.store import backup
from broker.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[3]
ALL = os.environ.get("FLEET_ANOMALIES") == "all"
#: What writes, and in which steps it is tried: a life makes some 240 pwrite64 and 30 fdatasync.
CALLS = {"fdatasync": 5, "fsync": 2, "pwrite64": 41, "rename": 1, "unlink": 3, "ftruncate": 2}
FAULTS = ["signal=KILL", "error=EIO", "error=ENOSPC"]


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-o", "/dev/null", "-e", "inject=sync:error=EIO", "true"], check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not here, or may not trace")


def life(folder: Path, *injected: str) -> subprocess.CompletedProcess[str]:
    """Run it with these faults."""
    trace: list[str | Path] = []
    if injected:
        trace = ["strace", "-f", "-qq", "-o", folder.with_name("trace"), *injected]
    command = [*trace, sys.executable, "-m", "tests.contract.store.life", folder]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False, cwd=ROOT)


def hold(folder: Path, said: list[str]) -> None:
    """What was said is so, and the disk holds a sound database or none."""
    database = folder / backup.DATABASE
    if not database.exists():
        assert not said
        return
    with contextlib.closing(SqliteStore(database, full_check=True)) as store:
        for line in said:
            word, _, rest = line.partition(" ")
            match word:
                case "accepted":
                    assert store.job(rest) is not None, f"{line}, and it is not there"
                case "sent":
                    job = store.job(rest.split()[0])
                    assert job is not None and job.attempt >= int(rest.split()[1]), f"{line}, and it is not written"
                case "recorded":
                    job = store.job(rest)
                    assert job is not None and job.state is JobState.SUCCEEDED, f"{line}, and it is not"
                case "backup":
                    assert backup.verify(folder / "backup" / "1.sqlite3").jobs == int(rest)
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.timeout(1_800 if ALL else 300)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_the_nth_call_fails(call: str, fault: str, tmp_path: Path) -> None:
    step = 1 if ALL else CALLS[call]
    # From another first one for each kind of fault.
    for n in itertools.count(1 + FAULTS.index(fault) * (step // 3), step):
        folder = tmp_path / str(n) / "data"
        folder.parent.mkdir()
        ended = life(folder, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}")
        said = ended.stdout.splitlines()
        assert "Traceback" not in ended.stderr, ended.stderr
        hold(folder, said)
        if ended.returncode:
            assert "ended" not in said
            again = life(folder)  # the ordinary start is the way back
            assert again.stdout.splitlines()[0] == "started", again.stderr
            hold(folder, said)
        reached = ended.returncode != 0 or "INJECTED" in (folder.parent / "trace").read_text()
        shutil.rmtree(folder.parent)
        if not reached:
            break


def test_a_life_without_a_fault_ends_well(tmp_path: Path) -> None:
    ended = life(tmp_path / "data")
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert [line.partition(" ")[0] for line in said] == [
        "started", *["accepted", "sent", "recorded"] * 3, "backup", "ended",
    ]  # fmt: skip
    hold(tmp_path / "data", said)
