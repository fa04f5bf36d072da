"""How a page of jobs is looked up in SQLite: one index leads, newest first; the rest is asked of each job it names.

Pure: statements and their values. Each ends in the sequence, so that a page is read from its end and never sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from broker.protocol.records import JobState
from broker.store import words
from broker.store.api import Wanted

#: Jobs looked at for one page. Filters that no one index serves together end it there, and its key leads on: some
#: 50 ms of the broker's one thread, however many jobs are stored.
LOOKED_AT: Final = 10_000

Statement = tuple[str, tuple[Any, ...]]


def statements(wanted: Wanted, first: int, before: int) -> Iterator[Statement]:
    """Queries for (sequence, whether it is wanted), newest first: together they name every wanted job in
    [first, before), and none twice."""
    states, span = tuple(dict.fromkeys(wanted.states)), (first, before - 1)
    match = words.match_of(wanted.text)
    asked = _asked(wanted, match)
    if wanted.group:
        yield _statement("job", "job.sequence", {"job.group_id = ?": wanted.group}, asked, span)
    elif match:
        del asked["text"]
        source = "search CROSS JOIN job ON job.sequence = search.rowid"
        yield _statement(source, "search.rowid", {"search MATCH ?": match}, asked, span)
    elif wanted.label:
        del asked["label"]
        source = "label CROSS JOIN job ON job.sequence = label.sequence"
        yield _statement(source, "label.sequence", {"label.label = ?": wanted.label}, asked, span)
    elif wanted.owner:
        rest = {name: term for name, term in asked.items() if name not in ("owner", "states")}
        for state in states or JobState:
            leads = {"job.owner = ?": wanted.owner, "job.state = ?": state}
            yield _statement("job", "job.sequence", leads, rest, span)
    elif wanted.template:
        del asked["template"]
        yield _statement("job", "job.sequence", {"job.template = ?": wanted.template}, asked, span)
    elif states:
        for state in states:
            yield _statement("job", "job.sequence", {"job.state = ?": state}, {}, span)
    else:
        yield _statement("job", "job.sequence", {}, {}, span)


def _asked(wanted: Wanted, match: str) -> dict[str, tuple[str, str]]:
    """What is asked of a row of job, by the filter that asks: a term and its value."""
    terms = {
        "owner": ("job.owner = ?", wanted.owner),
        "states": ("instr(?, ' ' || job.state || ' ')", f" {' '.join(wanted.states)} " if wanted.states else ""),
        "template": ("job.template = ?", wanted.template),
        "label": ("EXISTS (SELECT 1 FROM label WHERE label.label = ? AND label.sequence = job.sequence)", wanted.label),
        "text": ("EXISTS (SELECT 1 FROM search WHERE search MATCH ? AND search.rowid = job.sequence)", match),
    }
    return {name: (term, value) for name, (term, value) in terms.items() if value}


def _statement(
    source: str, number: str, leads: dict[str, str], asked: dict[str, tuple[str, str]], span: tuple[int, int]
) -> Statement:
    """number: the column of the index that is the sequence. leads: what the index is read by, each term's value."""
    fits = " AND ".join(term for term, _ in asked.values())
    sql = f"""
        SELECT {number}, {fits if fits else 1} FROM {source}
        WHERE {" AND ".join([*leads, f"{number} BETWEEN ? AND ?"])} ORDER BY {number} DESC"""
    return sql, (*(value for _, value in asked.values()), *leads.values(), *span)
