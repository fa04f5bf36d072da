"""A disk that fills up: what is refused when, and that the end of what runs can be recorded all the same."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.core.model import JobRecord
from broker.core.step import InsertJob, UpdateJob
from broker.protocol.records import JobState
from broker.store import room as module
from broker.store.files import FileProblem, FileStore
from broker.store.room import BALLAST_SHARE, FILES_SHARE, Room
from broker.store.sqlite import SqliteStore

MIB = 1 << 20
LEAST = 4 * MIB

NewJob = Callable[..., JobRecord]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", mount], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode(errors='replace').strip()}")
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def fill(disk: Path, left_bytes: int) -> None:
    """Leave so much room."""
    other = disk / "other"
    other.unlink(missing_ok=True)
    found = os.statvfs(disk)
    with other.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left_bytes)


def test_there_is_a_ballast_of_real_blocks(disk: Path) -> None:
    before = os.statvfs(disk).f_bavail
    assert not Room(disk, LEAST).is_full()
    found = os.statvfs(disk)
    assert (before - found.f_bavail) * found.f_frsize >= LEAST // BALLAST_SHARE


def test_nothing_is_taken_in_below_the_least_room_until_there_is_some_more(disk: Path) -> None:
    room = Room(disk, LEAST)
    for left_bytes, full in ((5 * MIB, False), (4 * MIB - 4_096, True), (4 * MIB + 8_192, True), (6 * MIB, False)):
        fill(disk, left_bytes)
        assert room.is_full() is full


def test_when_all_is_full_the_ballast_goes_and_ends_are_recorded(disk: Path, new_job: NewJob) -> None:
    room = Room(disk, LEAST)
    store = SqliteStore(disk / "fleet.sqlite3")
    jobs = [new_job(number, state=JobState.RUNNING) for number in range(1, 11)]
    for job in jobs:
        store.apply(InsertJob(job, b"w", b"f"))
    store.commit()
    fill(disk, 0)
    assert room.is_full() and not (disk / "ballast").exists()
    for job in jobs:
        store.apply(UpdateJob(dataclasses.replace(job, state=JobState.SUCCEEDED)))
        store.commit()
    assert store.counts() == {JobState.SUCCEEDED: len(jobs)}
    (disk / "other").unlink()
    assert not room.is_full() and (disk / "ballast").exists()
    store.close()


def test_files_stop_before_the_database_does(disk: Path) -> None:
    Room(disk, LEAST)
    files = FileStore(disk / "files", reserve_bytes=LEAST // FILES_SHARE)
    fill(disk, LEAST - MIB)
    with_room = files.begin("a" * 64, MIB)
    with_room.discard()
    fill(disk, LEAST // FILES_SHARE)
    with pytest.raises(FileProblem, match="do not fit"):
        files.begin("a" * 64, MIB)
