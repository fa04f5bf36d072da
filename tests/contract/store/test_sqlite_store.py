"""What only the durable store can do wrong: its file, its lock, its schema, its disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.core.estimates import Figure
from broker.core.model import JobRecord
from broker.core.step import AddStory, DeleteJob, InsertJob, SaveFigure, UpdateJob
from broker.protocol.errors import StoreError
from broker.protocol.records import InputFile, JobState, Member, Output, Why
from broker.protocol.story import Decision, StoryLine
from broker.store import pages, rules, sqlite
from broker.store.api import Wanted
from broker.store.failure import StoreFull
from broker.store.migrations import MIGRATIONS, Migration, migrate
from broker.store.rows import COLUMNS, story_row, to_row
from broker.store.sqlite import SqliteStore

NewJob = Callable[..., JobRecord]


@pytest.fixture
def store(sqlite_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(sqlite_path)) as opened:
        yield opened


def raw(store: SqliteStore) -> sqlite3.Connection:
    """The store's own connection: some settings and limits are the connection's alone."""
    assert store._db is not None
    return store._db


def fill(store: SqliteStore, new_job: NewJob, numbers: range) -> None:
    for number in numbers:
        store.apply(InsertJob(new_job(number), b"x" * 3_000, b""))
    store.commit()


def sequences(path: Path) -> list[int]:
    with closing(SqliteStore(path)) as store:
        return [job.sequence for job in store.live()]


def test_every_commit_is_synced(store: SqliteStore) -> None:
    def pragma(name: str) -> object:
        return raw(store).execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)


def test_jobs_that_are_alike_share_what_they_hold_after_a_restart(sqlite_path: Path, new_job: NewJob) -> None:
    given = InputFile(name="in.png", sha256="a" * 64, size_bytes=5)
    jobs = [new_job(number, title=f"{number}", labels=("x",), files=(given,)) for number in (1, 2)]
    with closing(SqliteStore(sqlite_path)) as store:
        for job in jobs:
            store.apply(InsertJob(job, b"", b""))
        store.commit()
    with closing(SqliteStore(sqlite_path)) as store:
        first, second = store.live()
    assert [first, second] == jobs
    for name in ("owner", "labels", "needs", "files"):
        assert getattr(first, name) is getattr(second, name)


def test_no_page_and_no_write_scans_or_sorts(store: SqliteStore, new_job: NewJob) -> None:
    statements: list[str] = []
    raw(store).set_trace_callback(statements.append)
    fill(store, new_job, range(1, 3))
    job = new_job(1)
    store.apply(
        AddStory(job.job_id, StoryLine(utc_ms=1, what="leased", attempt=1, burnt=0, worker="", text="", decision=None))
    )
    made = Output(node_id="9", name="a", kind="output", media_type="", sha256="b" * 64, size_bytes=9)
    store.apply(UpdateJob(dataclasses.replace(job, state=JobState.FAILED, finished_utc_ms=1, outputs=(made,))))
    store.commit()
    assert store.ended(before_utc_ms=2, limit=3) == store.ended(before_utc_ms=None, limit=1) != ()
    assert store.names(made.sha256)
    filters = itertools.product(
        ("", "ann"),
        ((), (JobState.QUEUED, JobState.FAILED)),
        ("", "t"),
        ("", "a"),
        ("", "g"),
        (None, 1),
        (None, 9),
        ("", "light"),
    )
    for owner, states, template, label, group, since_ms, until_ms, text in filters:
        wanted = Wanted(
            owner=owner, states=states, template=template, label=label, group=group, since_utc_ms=since_ms,
            until_utc_ms=until_ms, text=text,
        )  # fmt: skip
        store.page(wanted, after="", limit=10)
    store.job(job.job_id), store.job_by_key("ann", "key 1"), store.workflow(job.job_id), store.story(job.job_id)
    store.apply(DeleteJob(job.job_id))
    store.is_deleted(job.job_id), store.deleted_by_key("ann", "key 1")
    raw(store).set_trace_callback(None)
    asked = {text for text in statements if text.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "\n"))}
    plans = {step[3] for text in asked for step in raw(store).execute(f"EXPLAIN QUERY PLAN {text}")}
    # The index of words is a virtual table: reading it by what is sought is called a scan of its index.
    # Its own settings, a row or two, it reads once after the schema changed.
    plans = {plan for plan in plans if "VIRTUAL TABLE INDEX" not in plan and "search_config" not in plan}
    # Without any filter a page reads the table itself from its end: SEARCH by rowid.
    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN") or "TEMP B-TREE" in plan] == []


def test_a_page_looks_at_so_many_jobs_and_no_more_and_its_key_leads_on(
    store: SqliteStore, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOOKED_AT", 3)
    for number in range(1, 21):
        store.apply(InsertJob(new_job(number, template="a" if number in (1, 9, 10) else "b", labels=("x",)), b"", b""))
    found, after = [], ""
    while True:
        page = store.page(Wanted(template="a", label="x"), after=after, limit=2)
        found.append([job.sequence for job in page.jobs])
        after = page.next
        if not after:
            break
    assert found == [[], [], [], [10, 9], [], [], [1]]


# ---- alone


def test_a_second_broker_on_the_same_data_exits_at_once_and_names_the_first(
    store: SqliteStore, sqlite_path: Path
) -> None:
    with pytest.raises(StoreError, match=rf"another broker \(pid {os.getpid()} on \S+\) already uses the data"):
        SqliteStore(sqlite_path)
    opener = "import sys, pathlib, broker.store.sqlite as s; s.SqliteStore(pathlib.Path(sys.argv[1]))"
    argv = [sys.executable, "-c", opener, str(sqlite_path)]
    child = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 1
    assert f"pid {os.getpid()} on" in child.stderr.splitlines()[-1]


def test_the_next_broker_gets_in_when_the_first_has_closed(sqlite_path: Path, new_job: NewJob) -> None:
    first = SqliteStore(sqlite_path)
    fill(first, new_job, range(1, 3))
    first.close()
    assert sequences(sqlite_path) == [1, 2]


def test_a_store_that_does_not_open_leaves_the_lock_free(sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    sqlite_path.mkdir()
    with pytest.raises(StoreError, match="unable to open"):
        SqliteStore(sqlite_path)
    sqlite_path.rmdir()
    assert sequences(sqlite_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError, match="data: cannot make this folder"):
        SqliteStore(tmp_path / "data" / "fleet.db")


# ---- schema


def test_a_newer_schema_is_refused_and_left_alone(sqlite_path: Path) -> None:
    SqliteStore(sqlite_path).close()
    with closing(sqlite3.connect(sqlite_path)) as db, db:
        db.execute("INSERT INTO migration VALUES (?, 'from the future', '')", (len(MIGRATIONS) + 1,))
    before = sqlite_path.read_bytes()
    with pytest.raises(StoreError, match="written by a newer release"):
        SqliteStore(sqlite_path)
    assert sqlite_path.read_bytes() == before


def test_jobs_of_the_first_schema_are_found_by_what_came_later(sqlite_path: Path, new_job: NewJob) -> None:
    given = InputFile(name="in.png", sha256="a" * 64, size_bytes=5)
    made = [Output(node_id="9", name="a", kind="output", media_type="", sha256=s * 64, size_bytes=9) for s in "bba"]
    ended = {"state": JobState.SUCCEEDED, "finished_utc_ms": 7, "files": (given,), "outputs": tuple(made)}
    old = new_job(1, template="text-to-image", title="a lighthouse", labels=("x",), priority=3, **ended)
    row = dict(zip(COLUMNS, to_row(old), strict=True))
    own = {name: row[name] for name in ("body_sha256", "title", "template")}
    submitted = json.dumps({**own, **json.loads(row["submitted"]), "priority": 3, "files": json.loads(row["files"])})
    life = json.loads(row["life"]) | {"finished_utc_ms": old.finished_utc_ms}
    del life["priority"]
    sqlite_path.parent.mkdir()
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as db:
        migrate(db, sqlite_path, MIGRATIONS[:1])
        values = [row[name] for name in ("sequence", "job_id", "owner", "idempotency_key", "created_utc_ms")]
        db.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, submitted, old.state, json.dumps(life)))
        db.execute("INSERT INTO payload VALUES (1, x'7b7d', x'')")
        db.execute("INSERT INTO label VALUES ('x', 1)")
    with closing(SqliteStore(sqlite_path, full_check=True)) as store:
        assert store.job(old.job_id) == old
        for wanted in (Wanted(template="text-to-image"), Wanted(label="x"), Wanted(text="lighthouse")):
            assert store.page(wanted, after="", limit=9).jobs == (old,)
        assert store.ended(before_utc_ms=8, limit=9) == (old,) and store.ended(before_utc_ms=7, limit=9) == ()
        assert [store.names(s * 64) for s in "abc"] == [True, True, False]


def before_step(path: Path, name: str) -> sqlite3.Connection:
    """A new database without that step and whatever came later."""
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, MIGRATIONS[: [step.name for step in MIGRATIONS].index(name)])
    return db


def insert_without_columns(db: sqlite3.Connection, record: JobRecord) -> None:
    """A job as it was stored while all of what was submitted was one JSON."""
    row = dict(zip(COLUMNS, to_row(record), strict=True))
    submitted = {name: row.pop(name) for name in ("body_sha256", "title")} | json.loads(row["submitted"])
    group = record.group
    place = {"group_id": group.group_id, "index": group.index, "size": group.size} if group is not None else None
    submitted |= {"files": json.loads(row.pop("files")), "group": place}
    del row["group_index"], row["group_size"]
    row["submitted"] = json.dumps(submitted)
    db.execute(f"INSERT INTO job ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def test_jobs_are_as_they_were_before_what_they_asked_for_had_columns(sqlite_path: Path, new_job: NewJob) -> None:
    given = InputFile(name="in.png", sha256="a" * 64, size_bytes=5)
    group = Member(group_id=new_job(1).job_id, index=1, size=2)
    old = new_job(2, title='a "lake"', labels=("é", "x"), priority=-2, files=(given,), group=group, pin="gpu-1")
    with closing(before_step(sqlite_path, "what is each job's own in columns")) as db:
        insert_without_columns(db, old)
    with closing(SqliteStore(sqlite_path, full_check=True)) as store:
        assert list(store.live()) == [old]


def test_lines_of_an_earlier_schema_tell_of_no_failed_attempt(sqlite_path: Path, new_job: NewJob) -> None:
    job = new_job(1)
    line = StoryLine(utc_ms=1, what="leased", attempt=2, burnt=1, worker="gpu-1", text="to gpu-1", decision=None)
    with closing(before_step(sqlite_path, "each line of a story tells how many attempts had failed")) as db:
        db.execute(f"INSERT INTO job ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", to_row(job))
        db.execute("INSERT INTO story VALUES (1, 1, ?, ?, ?, ?, ?, ?)", story_row(line)[:6])
    with closing(SqliteStore(sqlite_path, full_check=True)) as store:
        assert store.story(job.job_id) == (dataclasses.replace(line, burnt=0),)
        store.apply(AddStory(job.job_id, line))
        assert store.story(job.job_id)[1] == line


def test_decisions_of_an_earlier_schema_are_told_as_before(sqlite_path: Path, new_job: NewJob) -> None:
    job = new_job(1)
    decision = Decision(
        policy="finish_time", why=Why.SOONEST, worker="gpu-1", waited_ms=4, waited_for="", instead="", candidates=()
    )
    line = StoryLine(utc_ms=1, what="leased", attempt=1, burnt=0, worker="gpu-1", text="to gpu-1", decision=decision)
    with closing(before_step(sqlite_path, "decisions tell for whom a job waited")) as db:
        insert_without_columns(db, job)
        db.execute("INSERT INTO story VALUES (1, 1, ?, ?, ?, ?, ?, ?)", story_row(line)[:6])
        db.execute("UPDATE story SET decision = json_remove(decision, '$.waited_for', '$.instead')")
    with closing(SqliteStore(sqlite_path, full_check=True)) as store:
        assert store.story(job.job_id) == (line,)


def test_another_programs_database_is_refused_and_left_alone(sqlite_path: Path) -> None:
    sqlite_path.parent.mkdir()
    with closing(sqlite3.connect(sqlite_path)) as db, db:
        db.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(StoreError, match="another program's database"):
        SqliteStore(sqlite_path)
    with closing(sqlite3.connect(sqlite_path)) as db:
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_schema")] == ["photos"]


def test_a_migration_that_breaks_off_leaves_the_schema_before_it_and_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    good = Migration("one", ("CREATE TABLE a (x)",))
    broken = Migration("two", ("CREATE TABLE b (x)", "CREATE TABLE a (x)"))
    mended = Migration("two", ("CREATE TABLE b (x)",))
    with closing(sqlite3.connect(path, isolation_level=None)) as db, pytest.raises(sqlite3.OperationalError):
        migrate(db, path, (good, broken))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("SELECT version, name FROM migration").fetchall() == [(1, "one")]
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'b'").fetchone() == (0,)
        migrate(db, path, (good, mended))
        migrate(db, path, (good, mended))
        assert db.execute("SELECT version, name FROM migration").fetchall() == [(1, "one"), (2, "two")]


def test_a_sequence_is_not_given_again_after_its_job_was_deleted(sqlite_path: Path, new_job: NewJob) -> None:
    with closing(SqliteStore(sqlite_path)) as store:
        fill(store, new_job, range(1, 4))
    with closing(sqlite3.connect(sqlite_path)) as db, db:
        db.execute("DELETE FROM payload WHERE sequence = 3")
        db.execute("DELETE FROM job WHERE sequence = 3")
    with closing(SqliteStore(sqlite_path)) as store:
        assert store.last_sequence() == 3


# ---- damage


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"not a database at all")


def damage_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * 512)


@pytest.mark.parametrize("damage", [damage_header, damage_page])
@pytest.mark.parametrize("full_check", [False, True])
def test_a_damaged_file_is_refused_with_the_way_back_and_never_touched(
    sqlite_path: Path, new_job: NewJob, damage: Callable[[Path], None], full_check: bool
) -> None:
    with closing(SqliteStore(sqlite_path)) as store:
        fill(store, new_job, range(1, 50))
    damage(sqlite_path)
    before = sqlite_path.read_bytes()
    with pytest.raises(StoreError, match=r"(?s)is damaged: .+restore.+backup.+\.recover"):
        SqliteStore(sqlite_path, full_check=full_check)
    assert sqlite_path.read_bytes() == before


def test_sqlite_keeps_the_type_of_every_column(store: SqliteStore) -> None:
    tables = [(name, strict) for _, name, kind, _, _, strict in raw(store).execute("PRAGMA main.table_list")
              if kind == "table" and not name.startswith("sqlite_")]  # fmt: skip
    assert {"job", "payload", "story", "deleted", "figure", "reference"} <= {name for name, _ in tables}
    assert [name for name, strict in tables if not strict] == []


def declare_jobs(db: sqlite3.Connection, sql: str) -> None:
    """Say that the table of jobs is so, and leave its rows as they are."""
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'job'", (sql,))
    db.execute("PRAGMA writable_schema = RESET")


@pytest.mark.parametrize("column", COLUMNS[1:])
@pytest.mark.parametrize("full_check", [False, True])
def test_a_column_that_holds_another_type_is_found_when_the_database_is_opened(
    sqlite_path: Path, new_job: NewJob, column: str, full_check: bool
) -> None:
    with closing(SqliteStore(sqlite_path)) as store:
        fill(store, new_job, range(1, 3))
    with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.IntegrityError, match="cannot store BLOB value"):
            db.execute(f"UPDATE job SET {column} = x'00'")
        ((sql,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'job'")
        declare_jobs(db, sql.removesuffix(" STRICT"))
        db.execute(f"UPDATE job SET {column} = x'00' WHERE sequence = 1")
        declare_jobs(db, sql)
    with pytest.raises(StoreError, match=rf"is damaged: non-\w+ value in job\.{column}"):
        SqliteStore(sqlite_path, full_check=full_check)


def test_a_state_that_there_is_not_is_found_when_the_database_is_opened(sqlite_path: Path, new_job: NewJob) -> None:
    with closing(SqliteStore(sqlite_path)) as store:
        fill(store, new_job, range(1, 3))
    with closing(sqlite3.connect(sqlite_path)) as db, db:
        db.execute("UPDATE job SET state = 'lost' WHERE sequence = 2")
    with pytest.raises(StoreError, match=rf"is damaged: job {new_job(2).job_id} has the state 'lost'"):
        SqliteStore(sqlite_path)


@pytest.mark.parametrize(
    "damage",
    [
        "life = '{}x'",
        "life = '[]'",
        "life = 'null'",
        """life = '{"attempt":"1"}'""",
        """life = '{"ran_out":1}'""",
        """life = '{"worker":null}'""",
        "submitted = '5'",
        "files = '{}'",
        "group_size = NULL",
    ],
)
def test_a_record_that_cannot_be_read_is_named(sqlite_path: Path, new_job: NewJob, damage: str) -> None:
    group = Member(group_id=new_job(9).job_id, index=0, size=1)
    with closing(SqliteStore(sqlite_path)) as store:
        store.apply(InsertJob(new_job(1, group=group), b"{}", b""))
        store.commit()
    with closing(sqlite3.connect(sqlite_path)) as db, db:
        db.execute(f"UPDATE job SET {damage}")
    with closing(SqliteStore(sqlite_path)) as store, pytest.raises(StoreError, match=new_job(1).job_id):
        store.job(new_job(1).job_id)


# ---- failing disk


def test_a_full_disk_closes_the_store_and_loses_nothing_recorded(
    store: SqliteStore, sqlite_path: Path, new_job: NewJob
) -> None:
    fill(store, new_job, range(1, 3))
    raw(store).execute("PRAGMA max_page_count = 30")
    with pytest.raises(StoreFull, match="the disk is full"):
        fill(store, new_job, range(3, 100))
    for use in (store.commit, store.checkpoint, store.live):
        with pytest.raises(StoreError, match="closed"):
            use()
    assert sequences(sqlite_path) == [1, 2]


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Makes the kernel refuse writes past so many bytes of any file: a disk error in the middle of a commit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_error_closes_the_store_for_good(
    store: SqliteStore, sqlite_path: Path, new_job: NewJob, file_size_limit: Callable[[int], None]
) -> None:
    fill(store, new_job, range(1, 3))
    file_size_limit(sqlite_path.with_name("fleet.db-wal").stat().st_size + 9_000)
    with pytest.raises(StoreError, match=r"the disk failed .*SQLITE_IOERR") as caught:
        fill(store, new_job, range(3, 100))
    file_size_limit(resource.RLIM_INFINITY)
    assert not isinstance(caught.value, StoreFull)
    with pytest.raises(StoreError, match="closed"):
        fill(store, new_job, range(3, 4))
    assert sequences(sqlite_path) == [1, 2]


def test_a_database_that_another_program_keeps_locked_is_a_failure_that_says_so(
    monkeypatch: pytest.MonkeyPatch, sqlite_path: Path, new_job: NewJob
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    with closing(SqliteStore(sqlite_path)) as store, closing(sqlite3.connect(sqlite_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program keeps it locked"):
            fill(store, new_job, range(1, 2))


def test_a_number_beyond_64_bits_is_a_store_error(store: SqliteStore, new_job: NewJob) -> None:
    fill(store, new_job, range(1, 2))
    with pytest.raises(StoreError, match="too large"):
        store.apply(InsertJob(new_job(2, created_utc_ms=2**63), b"", b""))


# ---- the log


def test_a_checkpoint_folds_the_log_into_the_database_once_that_is_worth_it(
    store: SqliteStore, sqlite_path: Path, new_job: NewJob, tmp_path: Path
) -> None:
    alone = tmp_path / "alone" / "fleet.db"
    alone.parent.mkdir()
    for last, found in ((10, []), (sqlite.FOLD_ROWS, list(range(1, sqlite.FOLD_ROWS)))):
        fill(store, new_job, range(store.last_sequence() + 1, last))
        store.checkpoint()
        store.checkpoint()
        shutil.copy(sqlite_path, alone)
        assert sequences(alone) == found


def test_a_checkpoint_leaves_an_open_transaction_alone(store: SqliteStore, new_job: NewJob) -> None:
    store.apply(InsertJob(new_job(1), b"", b""))
    store.checkpoint()
    store.commit()
    assert store.last_sequence() == 1


def test_figures_that_are_too_many_go_when_the_log_is_folded(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FIGURES", 2)
    monkeypatch.setattr(sqlite, "FOLD_ROWS", 1)
    figures = [Figure("speed", f"m{number}", "w", 1.0, 1) for number in range(4)]
    for figure in figures:
        store.apply(SaveFigure(figure))
    store.commit()
    store.checkpoint()
    assert list(store.figures()) == figures[2:]


def test_nobody_else_may_read_the_database_and_its_log(tmp_path: Path, new_job: NewJob) -> None:
    with closing(SqliteStore(tmp_path / "fleet.sqlite3")) as store:
        store.apply(InsertJob(new_job(1), b"{}", b""))
        store.commit()
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("fleet.sqlite3*")}
    assert {"fleet.sqlite3", "fleet.sqlite3-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}
