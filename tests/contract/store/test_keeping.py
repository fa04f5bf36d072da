"""Jobs and files that are not kept any longer: what goes, what stays, and that dying at any point loses nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker import keeping
from broker.core.events import FromClient, FromWorker
from broker.core.fleet import Fleet
from broker.core.invariants import check
from broker.core.model import JobRecord
from broker.core.rules import Now, Rules
from broker.core.step import InsertJob, UpdateJob
from broker.keeping import FIRST_MS, HURRY_MS, JUMP_MS, LOOK_MS, ROUND_MS, STEP_MS, TELL_MS, Keeping
from broker.protocol import client
from broker.protocol.events import JobGone
from broker.protocol.records import InputFile, JobState, Output
from broker.store.api import Store, Wanted
from broker.store.files import KEEP_UNNAMED_S, FileStore
from broker.store.memory import MemoryStore
from broker.store.sqlite import SqliteStore
from broker.turn import Outbound, Turn
from tests.core.broker.given import CLIENT, REQUEST, STREAM, UTC_MS, Given, job_id, submit_of

NewJob = Callable[..., JobRecord]
DAY_MS = 86_400_000


class Backend(Protocol):
    def open(self) -> Store: ...

    def crash(self, store: Store) -> Store: ...


class Died(BaseException):
    """The process ends here."""


def sha256_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class House:
    """A broker's turn and what it keeps, over a store and a file folder; its clock stands still until told."""

    def __init__(self, store: Store, files: Any, *, keep_for_ms: int = 0, keep_jobs: int = 0, now_ms: int = 0) -> None:
        self.store, self.files, self.now_ms = store, files, now_ms
        #: By how much the wall clock has jumped.
        self.jumped_ms = 0
        counts, last = store.counts(), store.last_sequence()
        fleet = Fleet(Rules(), STREAM, jitter=lambda: 0.5, counts=counts, last_sequence=last, now=self.now)
        fleet.recover(store.live(), store.notes(), store.figures(), self.now)
        has: Callable[[str], bool] = files.has
        self.turn = Turn(fleet, store, has)
        self.keeping = Keeping(self.turn, files, keep_for_ms=keep_for_ms, keep_jobs=keep_jobs, now=self.now)

    @property
    def now(self) -> Now:
        return Now(mono_ms=self.now_ms, utc_ms=UTC_MS + self.now_ms + self.jumped_ms)

    def asks(self, message: Any) -> Any:
        out = self.turn.take([], [FromClient(CLIENT, message)], self.now)
        check(self.turn.fleet)
        return out.to_clients[0].message

    def tidies(self, for_ms: int = FIRST_MS + STEP_MS, *, after_ms: int = 0) -> list[Any]:
        """Go on for that long with nothing else to do, once `after_ms` have passed at one go; what was published."""
        published: list[Any] = []
        self.now_ms += after_ms
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + max(1, self.keeping.sleep_ms(self.now_ms)))
            out: Outbound = self.keeping.step(self.now)
            published += out.published
            check(self.turn.fleet)
        return published


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keeping") / "files"


@pytest.fixture
def files(folder: Path) -> Iterator[FileStore]:
    files = FileStore(folder, reserve_bytes=0)
    yield files
    for name in list(files.stored()):
        (folder / name[:2] / name).unlink()


def lay(files: FileStore, folder: Path, name: str, *, days: float) -> str:
    """A stored file that nobody asked for in so many days."""
    data = name.encode()
    partial = files.begin(sha256_of(name), len(data))
    partial.write(data[partial.offset :])
    partial.finish()
    at_s = time.time() - days * 86_400
    os.utime(folder / partial.sha256[:2] / partial.sha256, (at_s, at_s))
    return partial.sha256


def given(name: str) -> InputFile:
    return InputFile(name=name, sha256=sha256_of(name), size_bytes=1)


def output(name: str) -> Output:
    return Output(node_id="9", name=name, kind="output", media_type="", sha256=sha256_of(name), size_bytes=1)


def fill(store: Store, files: FileStore, folder: Path, new_job: NewJob) -> None:
    """Jobs 1 to 4 ended some days ago, all from one input, each with a picture; 5 waits; 6 has just ended; and files
    that none of them names, one of today."""
    for name in ("in", "waiting", "made 1", "made 2", "made 3", "made 4", "made 6", "orphan", "document"):
        lay(files, folder, name, days=2)
    lay(files, folder, "upload", days=0.9)
    for number, days in ((1, 9), (2, 8), (3, 7), (4, 2), (5, None), (6, 0)):
        record = new_job(number, job_id=job_id(number), files=(given("waiting" if days is None else "in"),))
        store.apply(InsertJob(record, b"{}", b"", ""))
        if days is not None:
            finished, made = UTC_MS - days * DAY_MS, (output(f"made {number}"),)
            ended = dataclasses.replace(record, state=JobState.SUCCEEDED, finished_utc_ms=finished, outputs=made)
            store.apply(UpdateJob(ended))
    store.commit()


def numbers(store: Store) -> list[int]:
    return [job.sequence for job in store.page(Wanted(), after="", limit=50).jobs][::-1]


def there(files: FileStore, *names: str) -> list[str]:
    return [name for name in names if files.has(sha256_of(name))]


def test_by_default_every_job_is_kept_with_its_files_and_only_what_nobody_names_goes(
    store: Store, files: FileStore, folder: Path, new_job: NewJob
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files)
    assert house.tidies(FIRST_MS - 1) == [] and there(files, "orphan") == ["orphan"]
    assert house.tidies() == []
    assert numbers(store) == [1, 2, 3, 4, 5, 6]
    kept = ("in", "waiting", "made 1", "made 2", "made 3", "made 4", "made 6", "upload")
    assert sorted(files.stored()) == sorted(map(sha256_of, kept))


def test_jobs_go_by_age_and_their_own_files_with_them_and_nobody_can_run_them_again(
    store: Store, files: FileStore, folder: Path, new_job: NewJob
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files, keep_for_ms=5 * DAY_MS)
    gone = [message.job_id for message in house.tidies() if isinstance(message, JobGone)]
    assert gone == [job_id(1), job_id(2), job_id(3)]
    assert numbers(store) == [4, 5, 6]
    assert there(files, "in", "made 1", "made 2", "made 3", "made 4") == ["in", "made 4"]
    again = house.asks(submit_of(2, owner="ann", idempotency_key="key 2"))
    assert (again.code, job_id(2) in again.text) == ("deleted", True)
    house.tidies(after_ms=4 * DAY_MS)
    assert numbers(store) == [5, 6]
    house.tidies(after_ms=3 * DAY_MS)
    assert numbers(store) == [5] and there(files, "in", "waiting", "made 6") == ["waiting"]


def test_a_clock_that_jumps_deletes_no_job_until_it_is_back(
    store: Store, files: FileStore, folder: Path, new_job: NewJob, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files, keep_for_ms=5 * DAY_MS)
    house.jumped_ms = 365 * DAY_MS
    house.tidies()
    assert numbers(store) == [1, 2, 3, 4, 5, 6]
    assert [message[:16] for message in caplog.messages] == ["the clock jumped"]
    house.jumped_ms = JUMP_MS
    house.tidies()
    assert numbers(store) == [4, 5, 6]


def test_of_jobs_that_are_over_only_so_many_are_kept(
    store: Store, files: FileStore, folder: Path, new_job: NewJob
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files, keep_jobs=2, keep_for_ms=400 * DAY_MS)
    house.tidies()
    assert numbers(store) == [4, 5, 6]
    house.asks(client.Cancel(request_id=REQUEST, job_id=job_id(5)))
    house.tidies()
    assert numbers(store) == [5, 6]


def test_a_job_asked_for_again_is_kept_from_its_new_end(
    store: Store, files: FileStore, folder: Path, new_job: NewJob
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files, keep_for_ms=DAY_MS)
    house.asks(client.Cancel(request_id=REQUEST, job_id=job_id(5)))
    house.tidies(after_ms=DAY_MS - FIRST_MS - LOOK_MS)
    house.asks(client.Retry(request_id=REQUEST, job_id=job_id(5)))
    house.tidies(after_ms=2 * DAY_MS)
    assert numbers(store) == [5] and there(files, "waiting", "in") == ["waiting"]


def test_a_capability_document_stays_while_a_worker_names_it(
    store: Store, files: FileStore, folder: Path, new_job: NewJob
) -> None:
    fill(store, files, folder, new_job)
    house = House(store, files)
    introduction = dataclasses.replace(Given().worker("gpu-0").introduction(), capabilities=sha256_of("document"))
    house.turn.take([FromWorker(introduction.session, introduction)], [], house.now)
    house.tidies()
    assert there(files, "document", "orphan") == ["document"]


def test_what_somebody_asks_for_waits_another_day(store: Store, files: FileStore, folder: Path) -> None:
    lay(files, folder, "orphan", days=9)
    house = House(store, files)
    assert files.claim(sha256_of("orphan")) == len("orphan") and files.claim("f" * 64) is None
    house.tidies(after_ms=3 * ROUND_MS)
    assert there(files, "orphan") == ["orphan"]
    assert files.drop(sha256_of("orphan")) is None and files.drop("f" * 64) is None
    at_s = time.time() - KEEP_UNNAMED_S - 1
    os.utime(folder / sha256_of("orphan")[:2] / sha256_of("orphan"), (at_s, at_s))
    house.tidies(after_ms=ROUND_MS)
    assert there(files, "orphan") == []


def test_nothing_goes_while_something_decided_is_not_durable(store: Store, files: FileStore, folder: Path) -> None:
    lay(files, folder, "orphan", days=9)
    house = House(store, files, now_ms=FIRST_MS)
    house.turn._unsaved_ms = 0
    house.tidies()
    assert there(files, "orphan") == ["orphan"]
    house.turn.save()
    house.tidies(STEP_MS)
    assert there(files, "orphan") == []


def test_a_folder_that_cannot_be_listed_ends_the_round_and_not_the_broker(
    store: Store, files: FileStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay(files, folder, "orphan", days=9)
    house = House(store, files)
    hidden = (folder / "00").rename(folder / "hidden")
    house.tidies()
    hidden.rename(folder / "00")
    assert "files that no job names stay for now" in caplog.messages
    assert there(files, "orphan") == ["orphan"]
    house.tidies(after_ms=ROUND_MS)
    assert there(files, "orphan") == []


def test_a_file_that_cannot_be_removed_keeps_no_other(
    store: Store, files: FileStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(lay(files, folder, f"orphan {number}", days=9) for number in range(5))
    stuck = folder / names[0][:2] / names[0]
    stuck.unlink()
    stuck.mkdir()
    os.utime(stuck, (0, 0))
    House(store, files).tidies()
    assert caplog.messages.count("files that no job names stay for now") == 1
    assert list(files.stored()) == names[:1]
    stuck.rmdir()


def test_the_log_says_what_went(
    store: Store, files: FileStore, folder: Path, new_job: NewJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fill(store, files, folder, new_job)
    House(store, files, keep_for_ms=5 * DAY_MS).tidies(FIRST_MS + 2 * TELL_MS)
    told = [record.__dict__["fields"] for record in caplog.records if record.message == "not kept any longer"]
    assert {key: sum(one[key] for one in told) for key in ("jobs", "files")} == {"jobs": 3, "files": 5}
    assert sum(one["bytes"] for one in told) == len("made 1made 2made 3orphandocument")


def test_dying_at_any_point_loses_no_file_that_a_job_names(
    backend: Backend, files: FileStore, folder: Path, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "JOBS_AT_ONCE", 2)
    died = True
    for point in itertools.count():
        store = backend.open()
        fill(store, files, folder, new_job)
        house = House(store, files, keep_for_ms=5 * DAY_MS)
        left = iter(range(point))

        def dying(call: Callable[..., Any], left: Iterator[int] = left) -> Callable[..., Any]:
            def called(*values: Any) -> Any:
                if next(left, None) is None:
                    raise Died
                found = call(*values)
                if next(left, None) is None:
                    raise Died
                return found

            return called

        for owner, name in ((store, "apply"), (store, "commit"), (files, "drop")):
            monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
        try:
            house.tidies()
            house.tidies(after_ms=ROUND_MS)
            died = False
        except Died:
            pass
        for owner, name in ((store, "apply"), (store, "commit"), (files, "drop")):
            monkeypatch.delattr(owner, name)
        store = backend.crash(store)
        for job in store.page(Wanted(), after="", limit=50).jobs:
            named = [file.name for file in job.files] + [made.name for made in job.outputs]
            assert there(files, *named) == named, f"died at {point}"
        house = House(store, files, keep_for_ms=5 * DAY_MS)
        house.tidies()
        house.tidies(after_ms=ROUND_MS)
        assert numbers(store) == [4, 5, 6]
        left_over = ("in", "waiting", "made 4", "made 6", "upload")
        assert sorted(files.stored()) == sorted(map(sha256_of, left_over)), f"died at {point}"
        store.close()
        if not died:
            break
    assert point > 16, "there was something to die of"


# ---- any order of things


class Folder:
    """The file store's promises without a disk: sha256 -> whether nobody asked for it in a day."""

    def __init__(self) -> None:
        self.old: dict[str, bool] = {}

    def has(self, sha256: str) -> bool:
        return sha256 in self.old

    def stored(self) -> Iterator[str]:
        return iter(list(self.old))

    def drop(self, sha256: str) -> int | None:
        if not self.old.get(sha256, False):
            return None
        del self.old[sha256]
        return 1


class KeepingMachine(RuleBasedStateMachine):
    """People store files, submit, cancel, ask again and delete while the broker tidies up and dies."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Folder()
        self.now_ms, self.submitted = 0, set[int]()
        self.start(self.opened())

    def opened(self) -> Store:
        return MemoryStore()

    def crashed(self) -> Store:
        assert isinstance(self.house.store, MemoryStore)
        return self.house.store.crash()

    def start(self, store: Store) -> None:
        hours, files = 3_600_000, self.folder
        self.house = House(store, files, keep_for_ms=24 * hours, keep_jobs=3, now_ms=self.now_ms)

    @rule(name=st.sampled_from("abc"))
    def upload(self, name: str) -> None:
        self.folder.old[sha256_of(name)] = False

    @rule(number=st.integers(1, 6), names=st.sets(st.sampled_from("abc")))
    def submit(self, number: int, names: set[str]) -> None:
        reply = self.house.asks(submit_of(number, files=tuple(map(given, sorted(names)))))
        known = number in self.submitted
        if isinstance(reply, client.JobReply):
            assert reply.existed or (not known and all(self.folder.has(sha256_of(name)) for name in names))
            assert known or not reply.existed
            self.submitted.add(number)
        else:
            assert known or not all(self.folder.has(sha256_of(name)) for name in names)

    @rule(kind=st.sampled_from([client.Cancel, client.Cancel, client.Retry, client.Delete]), number=st.integers(1, 6))
    def speak(self, kind: type[Any], number: int) -> None:
        self.house.asks(kind(request_id=REQUEST, job_id=job_id(number)))

    @rule(hours=st.sampled_from([1, 25]))
    def time_passes(self, hours: int) -> None:
        live = set(self.house.turn.fleet.jobs.live)
        if hours > 24:
            self.folder.old = dict.fromkeys(self.folder.old, True)
        self.house.tidies(1_000, after_ms=hours * 3_600_000)
        self.now_ms = self.house.now_ms
        assert {job.job_id for job in self.house.store.live()} == live
        assert sum(count for state, count in self.house.store.counts().items() if state.terminal) <= 3
        named = {file.sha256 for job in self.jobs() for file in job.files}
        assert {sha256 for sha256, old in self.folder.old.items() if old} <= named

    @rule()
    def die(self) -> None:
        self.start(self.crashed())

    @invariant()
    def every_file_that_a_job_names_is_there(self) -> None:
        assert all(self.folder.has(file.sha256) for job in self.jobs() for file in job.files)

    def jobs(self) -> tuple[JobRecord, ...]:
        return self.house.store.page(Wanted(), after="", limit=50).jobs

    def teardown(self) -> None:
        self.house.store.close()


class SqliteKeeping(KeepingMachine):
    def opened(self) -> Store:
        self.disk = tempfile.TemporaryDirectory()
        return SqliteStore(Path(self.disk.name) / "fleet.db")

    def crashed(self) -> Store:
        self.house.store.close()
        return SqliteStore(Path(self.disk.name) / "fleet.db")

    def teardown(self) -> None:
        super().teardown()
        self.disk.cleanup()


TestInMemory = KeepingMachine.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=30)
TestInSqlite = SqliteKeeping.TestCase
TestInSqlite.settings = settings(max_examples=15, stateful_step_count=30)


def test_jobs_go_faster_while_far_too_many_are_there(
    store: Store, files: FileStore, folder: Path, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "JOBS_AT_ONCE", 1)
    monkeypatch.setattr(keeping, "BEHIND_JOBS", 2)
    fill(store, files, folder, new_job)
    house = House(store, files, keep_jobs=1)
    waits = []
    for _ in range(4):
        house.now_ms += house.keeping.sleep_ms(house.now_ms)
        house.keeping.step(house.now)
        waits.append(house.keeping.sleep_ms(house.now_ms))
    assert waits == [HURRY_MS, HURRY_MS, STEP_MS, STEP_MS]
