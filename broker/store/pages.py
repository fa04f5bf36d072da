"""How a page of jobs is looked up in SQLite: one index leads, newest first; the rest is asked of each job it names.

Pure: statements and their values. Each ends in the sequence, so that a page is read from its end and never sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from broker.protocol.records import JobState
from broker.store.api import Wanted

#: Jobs looked at for one page. Filters that no one index serves together end it there, and its key leads on: some
#: 50 ms of the broker's one thread, however many jobs are stored.
LOOKED_AT: Final = 10_000

Statement = tuple[str, tuple[Any, ...]]


def statements(wanted: Wanted, first: int, before: int) -> Iterator[Statement]:
    """Queries for (sequence, whether it is wanted), newest first: together they name every wanted job in
    [first, before), and none twice."""
    states = tuple(dict.fromkeys(wanted.states))
    if wanted.group:
        yield _statement("job", {"group_id": wanted.group}, wanted, first, before)
    elif wanted.label:
        source = "label CROSS JOIN job ON job.sequence = label.sequence"
        yield _statement(source, {"label.label": wanted.label}, wanted, first, before)
    elif wanted.owner:
        for state in states or JobState:
            yield _statement("job", {"owner": wanted.owner, "state": state}, wanted, first, before)
    elif wanted.template:
        yield _statement("job", {"template": wanted.template}, wanted, first, before)
    elif states:
        for state in states:
            yield _statement("job", {"state": state}, wanted, first, before)
    else:
        yield _statement("job", {}, wanted, first, before)


def _statement(source: str, leads: dict[str, str], wanted: Wanted, first: int, before: int) -> Statement:
    """leads: the columns of the index that is read, and their values; what else is wanted is asked of each row."""
    asked = {"owner": wanted.owner, "template": wanted.template}
    rest = {column: value for column, value in asked.items() if value and column not in leads}
    terms = [f"{column} = ?" for column in rest]
    values: list[Any] = list(rest.values())
    if wanted.states and "state" not in leads:
        terms.append("instr(?, ' ' || state || ' ')")
        values.append(f" {' '.join(wanted.states)} ")
    if wanted.label and "label.label" not in leads:
        terms.append("EXISTS (SELECT 1 FROM label WHERE label.label = ? AND label.sequence = job.sequence)")
        values.append(wanted.label)
    table = source.split(maxsplit=1)[0]
    where = " AND ".join([*(f"{column} = ?" for column in leads), f"{table}.sequence BETWEEN ? AND ?"])
    sql = f"""
        SELECT {table}.sequence, {" AND ".join(terms) or "1"} FROM {source}
        WHERE {where} ORDER BY {table}.sequence DESC"""
    return sql, (*values, *leads.values(), first, before - 1)
