"""The shape of the database, as the list of steps that led to it. Append only: a step once released never changes.

Each step and its line in `migration` commit together, so a crash in between repeats the step and never halves it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Final

from broker.protocol.errors import StoreError
from broker.store.words import words_of


@dataclasses.dataclass(frozen=True, slots=True)
class Migration:
    name: str
    statements: tuple[str, ...]


_JOBS = Migration(
    "jobs, their payloads, labels and stories",
    (
        # AUTOINCREMENT: a sequence is never given twice, not even after the newest job was deleted.
        """CREATE TABLE job (
             sequence INTEGER PRIMARY KEY AUTOINCREMENT,
             job_id TEXT NOT NULL UNIQUE,
             owner TEXT NOT NULL,
             idempotency_key TEXT NOT NULL,
             created_utc_ms INTEGER NOT NULL,
             submitted TEXT NOT NULL,
             state TEXT NOT NULL,
             life TEXT NOT NULL
           ) STRICT""",
        "CREATE UNIQUE INDEX job_by_key ON job (owner, idempotency_key) WHERE idempotency_key != ''",
        # Each ends in the sequence, so that a page is read from its end and never sorted.
        "CREATE INDEX job_by_state ON job (state, sequence)",
        "CREATE INDEX job_by_owner ON job (owner, state, sequence)",
        # Apart from job: megabytes that no list, no count and no update touches.
        """CREATE TABLE payload (
             sequence INTEGER PRIMARY KEY REFERENCES job,
             workflow BLOB NOT NULL,
             form BLOB NOT NULL
           ) STRICT""",
        """CREATE TABLE label (
             label TEXT NOT NULL,
             sequence INTEGER NOT NULL REFERENCES job,
             PRIMARY KEY (label, sequence)
           ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE story (
             sequence INTEGER NOT NULL REFERENCES job,
             line INTEGER NOT NULL,
             utc_ms INTEGER NOT NULL,
             what TEXT NOT NULL,
             attempt INTEGER NOT NULL,
             worker TEXT NOT NULL,
             text TEXT NOT NULL,
             PRIMARY KEY (sequence, line)
           ) STRICT, WITHOUT ROWID""",
    ),
)

_FILTERS = Migration(
    "templates and groups to list jobs by",
    (
        "ALTER TABLE job ADD COLUMN template TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN group_id TEXT",
        """UPDATE job SET template = json_extract(submitted, '$.template'),
                          submitted = json_remove(submitted, '$.template')""",
        "CREATE INDEX job_by_template ON job (template, sequence)",
        "CREATE INDEX job_by_group ON job (group_id, sequence) WHERE group_id IS NOT NULL",
    ),
)

_LOADING = Migration(
    "how long models were loaded",
    (
        """UPDATE job SET life = json_set(life, '$.timings.loading_ms', 0)
           WHERE json_type(life, '$.timings') = 'object'""",
    ),
)

_DELETED = Migration(
    "what is remembered of deleted jobs",
    (
        """CREATE TABLE deleted (
             number INTEGER PRIMARY KEY AUTOINCREMENT,
             job_id TEXT NOT NULL UNIQUE,
             owner TEXT NOT NULL,
             idempotency_key TEXT NOT NULL
           ) STRICT""",
        "CREATE UNIQUE INDEX deleted_by_key ON deleted (owner, idempotency_key) WHERE idempotency_key != ''",
        # Labels anew without REFERENCES: to hold to it, every delete of a job would read all labels of all jobs.
        "ALTER TABLE label RENAME TO label_before",
        """CREATE TABLE label (
             label TEXT NOT NULL,
             sequence INTEGER NOT NULL,
             PRIMARY KEY (label, sequence)
           ) STRICT, WITHOUT ROWID""",
        "INSERT INTO label SELECT label, sequence FROM label_before",
        "DROP TABLE label_before",
    ),
)

_NOTES = Migration(
    "what is remembered of the fleet itself: pauses, drains, breakers",
    ("CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",),
)

_LEARNT = Migration(
    "what was learnt of workers and models, and why a worker was chosen",
    (
        """CREATE TABLE figure (
             kind TEXT NOT NULL,
             subject TEXT NOT NULL,
             worker TEXT NOT NULL,
             value REAL NOT NULL,
             samples INTEGER NOT NULL,
             UNIQUE (kind, subject, worker)
           ) STRICT""",
        # JSON; empty where there was nothing to decide.
        "ALTER TABLE story ADD COLUMN decision TEXT NOT NULL DEFAULT ''",
    ),
)

_SEARCH = Migration(
    "words to search jobs by",
    (
        # As words.py parts them: the tokenizer has only to cut at spaces. Of older jobs the title, which begins as the
        # prompt does.
        "CREATE VIRTUAL TABLE search USING fts5 (words, tokenize = 'ascii')",
        "INSERT INTO search (rowid, words) SELECT sequence, words_of(json_extract(submitted, '$.title')) FROM job",
    ),
)

_KEEPING = Migration(
    "which files jobs name, and in which order jobs ended",
    (
        # A file goes when no row names it. The sha256 as bytes: half the size of its digits.
        """CREATE TABLE reference (
             sha256 BLOB NOT NULL,
             sequence INTEGER NOT NULL,
             PRIMARY KEY (sha256, sequence)
           ) STRICT, WITHOUT ROWID""",
        # In the order of the table, so that it is filled from one end.
        """INSERT INTO reference
           SELECT bytes_of(json_extract(value, '$.sha256')), sequence FROM job, json_each(job.submitted, '$.files')
           UNION
           SELECT bytes_of(json_extract(value, '$.sha256')), sequence FROM job, json_each(job.life, '$.outputs')
           ORDER BY 1, 2""",
        "ALTER TABLE job ADD COLUMN finished_utc_ms INTEGER",
        """UPDATE job SET finished_utc_ms = json_extract(life, '$.finished_utc_ms'),
                          life = json_remove(life, '$.finished_utc_ms')""",
        "CREATE INDEX job_by_end ON job (finished_utc_ms, sequence) WHERE finished_utc_ms IS NOT NULL",
    ),
)

_STORIES = Migration(
    "the oldest lines of a long story go by themselves",
    (
        # rules.STORY_LINES as it was then: what a step did stays what it did.
        """CREATE TRIGGER story_kept AFTER INSERT ON story WHEN NEW.line > 1000 BEGIN
             DELETE FROM story WHERE sequence = NEW.sequence AND line <= NEW.line - 1000;
           END""",
    ),
)

_WAITED_FOR = Migration(
    "decisions tell for whom a job waited",
    (
        """UPDATE story SET decision = json_set(decision, '$.waited_for', '', '$.instead', '')
           WHERE decision <> ''""",
    ),
)

_COLUMNS = Migration(
    "what is each job's own in columns",
    (
        "ALTER TABLE job ADD COLUMN body_sha256 TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN title TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN files TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE job ADD COLUMN group_index INTEGER",
        "ALTER TABLE job ADD COLUMN group_size INTEGER",
        # The first jobs had their priority where it was submitted.
        """UPDATE job SET body_sha256 = json_extract(submitted, '$.body_sha256'),
                          title = json_extract(submitted, '$.title'),
                          files = json_extract(submitted, '$.files'),
                          group_index = json_extract(submitted, '$.group.index'),
                          group_size = json_extract(submitted, '$.group.size'),
                          life = CASE WHEN json_type(life, '$.priority') IS NOT NULL THEN life
                                 ELSE json_set(life, '$.priority', json_extract(submitted, '$.priority')) END,
                          submitted = json_object('labels', json_extract(submitted, '$.labels'),
                                                  'needs', json_extract(submitted, '$.needs'))""",
    ),
)

_BURNT = Migration(
    "each line of a story tells how many attempts had failed",
    # Of older lines nobody knows.
    ("ALTER TABLE story ADD COLUMN burnt INTEGER NOT NULL DEFAULT 0",),
)

MIGRATIONS: Final[tuple[Migration, ...]] = (
    _JOBS, _FILTERS, _LOADING, _DELETED, _NOTES, _LEARNT, _SEARCH, _KEEPING, _STORIES, _WAITED_FOR, _COLUMNS,
    _BURNT,
)  # fmt: skip


def migrate(db: sqlite3.Connection, path: Path, steps: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the database to the newest shape. Raises StoreError for a newer or a foreign one, sqlite3.Error otherwise.

    db: in autocommit mode, so that the transactions begun here are the only ones.
    """
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and "migration" not in tables:
        raise StoreError(f"{path} is another program's database: name a file of our own, or one that does not exist")
    done = db.execute("SELECT max(version) FROM migration").fetchone()[0] if tables else 0
    if done > len(steps):
        raise StoreError(
            f"{path} was written by a newer release (schema {done}, this one knows {len(steps)}): "
            "start that release again, or restore the backup from before the upgrade"
        )
    db.create_function("words_of", 1, lambda text: " ".join(words_of(text)), deterministic=True)
    db.create_function("bytes_of", 1, bytes.fromhex, deterministic=True)
    for version, step in enumerate(steps[done:], done + 1):
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS migration "
            "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_utc TEXT NOT NULL) STRICT"
        )
        for statement in step.statements:
            db.execute(statement)
        db.execute("INSERT INTO migration VALUES (?, ?, datetime('now'))", (version, step.name))
        db.execute("COMMIT")
