"""A backup made while the broker writes, what its check finds, and a broker's data brought back from one."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.core.model import JobRecord
from broker.core.step import InsertJob, UpdateJob
from broker.protocol.errors import StoreError
from broker.protocol.records import InputFile, JobState, Output
from broker.store import backup
from broker.store.files import FileStore
from broker.store.migrations import MIGRATIONS, migrate
from broker.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[3]

NewJob = Callable[..., JobRecord]


def keep(data: Path, content: bytes) -> str:
    """A stored file."""
    sha256 = hashlib.sha256(content).hexdigest()
    partial = FileStore(data / "files", reserve_bytes=0).begin(sha256, len(content))
    partial.write(content)
    partial.finish()
    return sha256


def output(sha256: str) -> Output:
    return Output(node_id="9", name="a.png", kind="output", media_type="image/png", sha256=sha256, size_bytes=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path, new_job: NewJob) -> SqliteStore:
    """Two jobs, one with an input, one with an output; open, as a running broker has it."""
    opened = SqliteStore(data / backup.DATABASE)
    given = InputFile(name="in.png", sha256=keep(data, b"input"), size_bytes=5)
    opened.apply(InsertJob(new_job(1, files=(given,)), b"w1", b"f"))
    opened.apply(InsertJob(new_job(2), b"w2", b"f"))
    made = dataclasses.replace(new_job(2), state=JobState.SUCCEEDED, outputs=(output(keep(data, b"picture")),))
    opened.apply(UpdateJob(made))
    opened.commit()
    return opened


def test_a_backup_of_a_running_broker_is_whole(data: Path, store: SqliteStore, new_job: NewJob, tmp_path: Path) -> None:
    store.apply(InsertJob(new_job(3), b"w3", b"f"))  # not committed: nobody was told
    made = backup.make(data, tmp_path / "backup", "1")
    assert (made.jobs, made.files, made.copied, made.missing) == (2, 2, 2, ())
    store.commit()
    found = backup.verify(made.database)
    assert (found.jobs, found.files, found.missing, found.damaged) == (2, 2, (), ())
    assert store.counts()[JobState.QUEUED] == 2
    store.close()


def test_the_broker_goes_on_writing_meanwhile(data: Path, store: SqliteStore, new_job: NewJob, tmp_path: Path) -> None:
    for number in range(3, 500):
        store.apply(InsertJob(new_job(number), b"w" * 10_000, b"f"))
    store.commit()
    found: list[backup.Summary] = []
    copying = threading.Thread(target=lambda: found.append(backup.make(data, tmp_path / "backup", "1")))
    copying.start()
    number = 500
    while copying.is_alive():
        store.apply(InsertJob(new_job(number), b"w", b"f"))
        store.commit()
        number += 1
    copying.join()
    assert 499 <= backup.verify(found[0].database).jobs <= number - 1
    store.close()


def test_the_next_one_copies_only_what_is_new(data: Path, store: SqliteStore, new_job: NewJob, tmp_path: Path) -> None:
    backup.make(data, tmp_path / "backup", "1")
    store.apply(
        UpdateJob(dataclasses.replace(new_job(1, files=store_files(store)), outputs=(output(keep(data, b"2")),)))
    )
    store.commit()
    assert backup.make(data, tmp_path / "backup", "2").copied == 1
    assert backup.newest(tmp_path / "backup").name == "2.sqlite3"
    store.close()


def store_files(store: SqliteStore) -> tuple[InputFile, ...]:
    job = store.job("00000000-0000-0000-0000-000000000001")
    assert job is not None
    return job.files


def test_what_was_lost_or_changed_in_a_backup_is_found(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    made = backup.make(data, tmp_path / "backup", "1")
    store.close()
    first, second = sorted(path for path in (tmp_path / "backup" / "files").rglob("*") if path.is_file())
    first.write_bytes(b"other")
    second.unlink()
    found = backup.verify(made.database)
    assert found.damaged == (first.name,) and found.missing == (second.name,)
    made.database.write_bytes(made.database.read_bytes()[:5_000])
    with pytest.raises(StoreError, match="damaged"):
        backup.verify(made.database)


def test_a_file_that_the_data_has_lost_is_told(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    lost = hashlib.sha256(b"picture").hexdigest()
    (data / "files" / lost[:2] / lost).unlink()
    assert backup.make(data, tmp_path / "backup", "1").missing == (lost,)
    store.close()


def test_a_database_of_an_earlier_shape_is_backed_up_before_it_is_brought_up(data: Path, tmp_path: Path) -> None:
    picture = keep(data, b"picture")
    path = data / backup.DATABASE
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        earlier = next(place for place, step in enumerate(MIGRATIONS) if "body_sha256" in step.statements[0])
        migrate(db, path, MIGRATIONS[:earlier])
        db.execute("INSERT INTO reference VALUES (?, 1)", (bytes.fromhex(picture),))
    made = backup.make(data, tmp_path / "backup", "1")
    assert (made.files, made.missing) == (1, ())
    assert backup.verify(made.database).files == 1


def test_a_small_file_that_has_no_place_yet_is_in_the_backup(
    data: Path, store: SqliteStore, new_job: NewJob, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(b"small").hexdigest()
    files = FileStore(data / "files", reserve_bytes=0)
    assert files.keep(sha256, b"small")
    store.apply(InsertJob(new_job(3, files=(InputFile(name="in.png", sha256=sha256, size_bytes=5),)), b"w3", b"f"))
    store.commit()
    assert backup.make(data, tmp_path / "backup", "1").missing == ()
    assert (tmp_path / "backup" / "files" / sha256[:2] / sha256).read_bytes() == b"small"
    files.settle()
    assert backup.make(data, tmp_path / "backup", "2").copied == 0
    store.close()


def test_the_way_back_is_as_the_page_tells_it(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    made = backup.make(data, tmp_path / "backup", "1")
    store.close()
    data.rename(tmp_path / "broken")
    data.mkdir()
    shutil.copy(made.database, data / backup.DATABASE)
    shutil.copytree(tmp_path / "backup" / "files", data / "files")
    again = SqliteStore(data / backup.DATABASE)
    assert [job.job_id for job in again.live()] == ["00000000-0000-0000-0000-000000000001"]
    assert again.workflow("00000000-0000-0000-0000-000000000002") == b"w2"
    assert FileStore(data / "files", reserve_bytes=0).has(hashlib.sha256(b"picture").hexdigest())
    again.close()


def run(config: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts" / "backup", "--config", config, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_makes_and_verifies_and_says_what_is_wrong(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    config, folder = tmp_path / "config.ini", tmp_path / "backup"
    config.write_text("[broker]\ndata = data\n")
    made = run(config, folder)
    assert made.returncode == 0 and "2 jobs, 2 files (2 copied)" in made.stdout, made.stderr
    verified = run(config, "--verify", folder)
    assert verified.returncode == 0 and verified.stdout.startswith("backup verified: ")
    shutil.rmtree(folder / "files")
    lost = run(config, "--verify", folder)
    assert lost.returncode == 1 and lost.stderr.count("is missing") == 2
    store.close()
    shutil.rmtree(data)
    nothing = run(config, folder)
    assert nothing.returncode == 1 and "no database to back up" in nothing.stderr
    assert "Traceback" not in made.stderr + verified.stderr + lost.stderr + nothing.stderr


def test_two_backups_are_not_written_to_one_folder_at_once(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    with (folder / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another backup is being written there"):
            backup.make(data, folder, "1")
        assert sorted(path.name for path in folder.iterdir()) == ["lock"]
    assert backup.make(data, folder, "1").jobs == 2
    store.close()


def test_a_backup_that_was_killed_leaves_nothing_for_long(data: Path, store: SqliteStore, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    for name in (backup.PARTIAL, f"{backup.PARTIAL}-journal"):
        (folder / name).write_bytes(b"half of it")
    assert backup.verify(backup.make(data, folder, "1").database).jobs == 2
    assert sorted(path.name for path in folder.iterdir()) == ["1.sqlite3", "files", "lock"]
    store.close()
