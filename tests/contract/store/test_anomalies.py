"""A broker's life, and an upgrade of its database, with the Nth system call failing, or being the last.

Whatever was said before is true of the disk; an upgrade has happened or not, step by step. For N = 1, 2, … until it
ends well, in steps in CI; FLEET_ANOMALIES=all tries every N. Needs strace.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from broker.protocol.records import JobState
from broker.store import backup
from broker.store.migrations import MIGRATIONS, migrate
from broker.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[3]
ALL = os.environ.get("FLEET_ANOMALIES") == "all"
#: What writes, and in which steps it is tried: a life makes some 240 pwrite64 and 30 fdatasync.
CALLS = {"fdatasync": 5, "fsync": 2, "pwrite64": 41, "rename": 1, "unlink": 3, "ftruncate": 2}
FAULTS = ["signal=KILL", "error=EIO", "error=ENOSPC"]
#: Of an upgrade; it makes some 300 pwrite64. A disk that is full stays full.
UPGRADE_CALLS = {"fdatasync": 2, "fsync": 1, "pwrite64": 7, "unlink": 1}
UPGRADE_FAULTS = {"signal=KILL": "", "error=EIO": "", "error=ENOSPC": "+"}
OLD_JOBS = 200


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-o", "/dev/null", "-e", "inject=sync:error=EIO", "true"], check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="strace is not here, or may not trace")


def life(folder: Path, *injected: str) -> subprocess.CompletedProcess[str]:
    """Run it with these faults."""
    return run([sys.executable, "-m", "tests.contract.store.life", folder], folder.with_name("trace"), *injected)


def run(command: list[str | Path], trace: Path, *injected: str) -> subprocess.CompletedProcess[str]:
    if injected:
        command = ["strace", "-f", "-qq", "-o", trace, *injected, *command]
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


# What a broker's start does to its database.
UPGRADE = """
import sys
from pathlib import Path
from broker.protocol.errors import StoreError
from broker.store.sqlite import SqliteStore
try:
    SqliteStore(Path(sys.argv[1])).close()
except StoreError as e:
    sys.exit(f"failed {e}")
"""


def make_old(path: Path) -> None:
    """A database of the first schema: waiting jobs and ended ones, with labels, files and stories."""
    needs = {"nodes": [], "models": [], "labels": [], "vram_bytes": 0, "pixels": 0, "steps": 0, "signature": ""}
    file = {"name": "in.png", "sha256": "a" * 64, "size_bytes": 5}
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        migrate(db, path, MIGRATIONS[:1])
        db.execute("BEGIN")
        for number in range(1, OLD_JOBS + 1):
            over = number % 2
            submitted = {
                "body_sha256": "0" * 64, "title": f"a lake {number}", "template": "text-to-image", "labels": ["x"],
                "priority": 0, "needs": needs, "files": [file],
            }  # fmt: skip
            since: dict[str, object] = {"attempt": over, "finished_utc_ms": 7 if over else None, "outputs": []}
            job = (
                number, str(uuid.UUID(int=number)), "ann", f"key {number}", 1, json.dumps(submitted),
                "succeeded" if over else "queued", json.dumps(since),
            )  # fmt: skip
            db.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?)", job)
            db.execute("INSERT INTO payload VALUES (?, ?, x'')", (number, b"{}" * 500))
            db.execute("INSERT INTO label VALUES ('x', ?)", (number,))
            db.execute("INSERT INTO story VALUES (?, 1, 1, 'queued', 0, '', '')", (number,))
        db.execute("COMMIT")


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row that means something to people, once the database is opened as by a broker."""
    with contextlib.closing(SqliteStore(path, full_check=True)) as store:
        assert len(list(store.live())) == OLD_JOBS // 2
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = ("job", "payload", "label", "story", "reference")
        found = {table: sorted(db.execute(f"SELECT * FROM {table}")) for table in tables}
        found["words"] = db.execute("SELECT count(*) FROM search WHERE search MATCH 'lake'").fetchall()
        found["steps"] = db.execute("SELECT version, name FROM migration ORDER BY version").fetchall()
        return found


@pytest.mark.timeout(1_800 if ALL else 300)
@pytest.mark.parametrize("fault", UPGRADE_FAULTS)
@pytest.mark.parametrize("call", UPGRADE_CALLS)
def test_the_nth_call_of_an_upgrade_fails(call: str, fault: str, tmp_path: Path) -> None:
    old, step = tmp_path / "old.sqlite3", 1 if ALL else UPGRADE_CALLS[call]
    make_old(old)
    shutil.copyfile(old, tmp_path / "undisturbed.sqlite3")
    want = content(tmp_path / "undisturbed.sqlite3")
    for n in itertools.count(1, step):
        path = tmp_path / str(n) / backup.DATABASE
        path.parent.mkdir()
        shutil.copyfile(old, path)
        inject = f"inject={call}:{fault}:when={n}{UPGRADE_FAULTS[fault]}"
        ended = run([sys.executable, "-c", UPGRADE, path], tmp_path / "trace", "-e", f"trace={call}", "-e", inject)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert content(path) == want
        shutil.rmtree(path.parent)
        if ended.returncode == 0 and "INJECTED" not in (tmp_path / "trace").read_text():
            break


def test_a_life_without_a_fault_ends_well(tmp_path: Path) -> None:
    ended = life(tmp_path / "data")
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert [line.partition(" ")[0] for line in said] == [
        "started", *["accepted", "sent", "recorded"] * 3, "backup", "ended",
    ]  # fmt: skip
    hold(tmp_path / "data", said)
