"""Searches beside the loop: the same answers as in it, and nothing of theirs ends otherwise than said."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.core.events import FromClient
from broker.core.step import InsertJob
from broker.protocol import client
from broker.protocol.errors import StoreError
from broker.reading import wanted_by
from broker.searches import STALE_MS, Searches
from broker.store.api import Page
from broker.store.sqlite import SqliteStore
from tests.core.broker.given import CLIENT, REQUEST, Given, job_id

LONG_MS = 30_000


def search(text: str, after: str = "", limit: int = 2) -> FromClient:
    said = client.List(
        request_id=REQUEST, owner="", states=(), template="", label="", group="", since_utc_ms=None,
        until_utc_ms=None, text=text, after=after, limit=limit,
    )  # fmt: skip
    return FromClient(CLIENT, said)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "a folder?" / "fleet.db")) as store:
        given = Given()
        for number, text in enumerate(("a lighthouse", "a storm", "light", "lightning"), 1):
            given.submitted(number)
            store.apply(InsertJob(given.fleet.jobs.live[job_id(number)].record, b"{}", b"", text))
        store.commit()
        yield store


@pytest.fixture
def beside(store: SqliteStore) -> Iterator[Searches]:
    with closing(Searches(store._path)) as running:
        yield running


def found(beside: Searches, many: int) -> list[tuple[FromClient, Page | None]]:
    poll = select.poll()
    poll.register(beside.fileno(), select.POLLIN)
    answers: list[tuple[FromClient, Page | None]] = []
    while len(answers) < many:
        assert poll.poll(LONG_MS), "nothing was found"
        answers += beside.take()
    return answers


def test_they_find_what_the_store_finds_in_the_order_in_which_they_were_asked(
    store: SqliteStore, beside: Searches
) -> None:
    asked = [search("light"), search("light", limit=9), search("storm"), search("nothing"), search("light", after="3")]
    for one in asked:
        beside.ask(one)
    expected = [
        (one, store.page(wanted_by(one.message), after=one.message.after, limit=one.message.limit)) for one in asked
    ]
    assert found(beside, 5) == expected
    assert [len(page.jobs) for _, page in expected] == [2, 3, 1, 0, 1]


def test_they_see_what_is_committed_and_nothing_else(store: SqliteStore, beside: Searches) -> None:
    record = store.job(job_id(4))
    assert record is not None
    given = Given()
    for number in range(1, 6):
        given.submitted(number)
    store.apply(InsertJob(given.fleet.jobs.live[job_id(5)].record, b"{}", b"", "a quay"))
    beside.ask(search("quay"))
    ((_, before),) = found(beside, 1)
    store.commit()
    beside.ask(search("quay"))
    ((_, after),) = found(beside, 1)
    assert before == Page((), "") and after is not None and [job.job_id for job in after.jobs] == [job_id(5)]


def test_a_key_that_leads_nowhere_is_said_so_and_the_next_is_answered(beside: Searches) -> None:
    beside.ask(search("light", after="nowhere"))
    beside.ask(search("storm"))
    (_, nowhere), (_, page) = found(beside, 2)
    assert nowhere is None and page is not None and len(page.jobs) == 1


def test_who_asked_long_ago_is_not_answered(beside: Searches) -> None:
    beside._asked.put((search("light"), -STALE_MS - 1))
    beside.ask(search("storm"))
    assert [request.message.text for request, _ in found(beside, 1)] == ["storm"]


def test_a_database_that_cannot_be_read_stops_whoever_turns(tmp_path: Path) -> None:
    with closing(Searches(tmp_path / "nothing.db")) as beside:
        beside.ask(search("light"))
        with pytest.raises(StoreError, match=r"nothing\.db"):
            found(beside, 1)
        assert beside.alive
