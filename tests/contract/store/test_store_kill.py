"""A process killed at any moment leaves every job whose commit it had reported."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from broker.store.api import Wanted
from broker.store.sqlite import SqliteStore

# Commits groups of 1 to 8 jobs, and reports each group's last job once its commit has returned.
_SUBMITTER = """
import itertools, os, sys
from pathlib import Path
from broker.core.model import JobRecord
from broker.core.step import AddStory, InsertJob
from broker.protocol.records import Needs
from broker.protocol.story import StoryLine
from broker.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
needs = Needs(nodes=(), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="")
line = StoryLine(utc_ms=1, what="queued", attempt=0, burnt=0, worker="", text="", decision=None)
sequence = store.last_sequence()
for group in itertools.count():
    for _ in range(1 + group % 8):
        sequence += 1
        job_id = f"00000000-0000-0000-0000-{sequence:012}"
        store.apply(InsertJob(JobRecord(
            sequence=sequence, job_id=job_id, owner="", idempotency_key=job_id, body_sha256="", title="", template="",
            labels=("a",), priority=0, needs=needs, files=(), created_utc_ms=sequence), os.urandom(2000), b""))
        store.apply(AddStory(job_id, line))
    store.commit()
    os.write(1, b"%d\\n" % sequence)
    if group % 16 == 15:
        store.checkpoint()
"""


def test_every_acknowledged_job_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    for groups in (1, 7, 40, 100, 160):
        with subprocess.Popen([sys.executable, "-c", _SUBMITTER, path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            reported = [child.stdout.readline() for _ in range(groups)]
            os.kill(child.pid, signal.SIGKILL)
            reported += child.stdout.read().splitlines()
            acknowledged = int(reported[-1])
        with closing(SqliteStore(path, full_check=True)) as store:
            found = [job.sequence for job in store.live()]
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= acknowledged > 0
            for job in store.page(Wanted(label="a"), after="", limit=100).jobs:
                assert len(store.workflow(job.job_id)) == 2_000
                assert len(store.story(job.job_id)) == 1
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
