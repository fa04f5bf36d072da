"""Pages of jobs, whatever narrows them, from each of the stores."""

from __future__ import annotations

import dataclasses

import pytest

from broker.core.step import DeleteJob, InsertJob, UpdateJob
from broker.protocol.records import JobState, Member
from broker.store.api import Store, Wanted
from tests.contract.store.test_store_contract import Backend, NewJob, insert, pages, put


def test_pages_are_newest_first_and_meet_without_gap_or_overlap(store: Store, new_job: NewJob) -> None:
    put(store, *(insert(new_job(n)) for n in range(1, 8)))
    assert pages(store, 3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert pages(store, 7) == [[7, 6, 5, 4, 3, 2, 1]]
    assert pages(store, 200) == [[7, 6, 5, 4, 3, 2, 1]]


def test_a_page_is_not_shifted_by_jobs_that_came_after_the_first(store: Store, new_job: NewJob) -> None:
    put(store, *(insert(new_job(n)) for n in range(1, 5)))
    first = store.page(Wanted(), after="", limit=2)
    put(store, insert(new_job(5)))
    second = store.page(Wanted(), after=first.next, limit=2)
    assert [job.sequence for job in (*first.jobs, *second.jobs)] == [4, 3, 2, 1]


def test_filters_narrow_a_page_together(store: Store, new_job: NewJob) -> None:
    put(
        store,
        insert(new_job(1, owner="ann", labels=("a", "b"))),
        insert(new_job(2, owner="bob", labels=("a",), state=JobState.FAILED)),
        insert(new_job(3, owner="ann", state=JobState.FAILED)),
        insert(new_job(4, owner="ann", labels=("a", "a"), state=JobState.SUCCEEDED)),
    )
    both = (JobState.FAILED, JobState.SUCCEEDED, JobState.FAILED)
    assert pages(store, 1, owner="ann") == [[4], [3], [1]]
    assert pages(store, 2, label="a") == [[4, 2], [1]]
    assert pages(store, 2, states=both) == [[4, 3], [2]]
    assert pages(store, 2, owner="ann", states=both) == [[4, 3]]
    assert pages(store, 2, owner="ann", label="a") == [[4, 1]]
    assert pages(store, 2, owner="ann", label="a", states=(JobState.SUCCEEDED,)) == [[4]]
    assert pages(store, 2, label="none") == [[]]
    assert pages(store, 2, owner="nobody") == [[]]


def test_filters_by_template_group_and_time_narrow_a_page_too(store: Store, new_job: NewJob) -> None:
    one, other = (Member(group_id=f"00000000-0000-0000-0000-{n:012}", index=0, size=2) for n in (1, 2))
    failed = JobState.FAILED
    put(
        store,
        insert(new_job(1, template="a", created_utc_ms=10)),
        insert(new_job(2, template="a", created_utc_ms=20, group=one, labels=("x",), owner="bob")),
        insert(new_job(4, template="b", created_utc_ms=20, group=one, state=failed, owner="bob")),
        insert(new_job(5, template="a", created_utc_ms=30, group=other, state=failed)),
        insert(new_job(9, template="a", created_utc_ms=40, labels=("x",))),
    )
    for filters, expected in (
        ({"template": "a"}, [9, 5, 2, 1]),
        ({"template": "a", "owner": "bob"}, [2]),
        ({"template": "a", "states": (failed,)}, [5]),
        ({"template": "a", "label": "x"}, [9, 2]),
        ({"template": "b", "label": "x"}, []),
        ({"template": "c"}, []),
        ({"group": one.group_id}, [4, 2]),
        ({"group": one.group_id, "owner": "ann"}, []),
        ({"group": one.group_id, "template": "a", "states": (JobState.QUEUED,), "label": "x", "owner": "bob"}, [2]),
        ({"group": other.group_id, "label": "x"}, []),
        ({"since_utc_ms": 20}, [9, 5, 4, 2]),
        ({"since_utc_ms": 21}, [9, 5]),
        ({"until_utc_ms": 20}, [1]),
        ({"until_utc_ms": 21}, [4, 2, 1]),
        ({"since_utc_ms": 20, "until_utc_ms": 40, "template": "a"}, [5, 2]),
        ({"since_utc_ms": 0}, [9, 5, 4, 2, 1]),
        ({"since_utc_ms": 41}, []),
        ({"until_utc_ms": 10}, []),
        ({"since_utc_ms": 30, "until_utc_ms": 20}, []),
        ({"until_utc_ms": 2**53}, [9, 5, 4, 2, 1]),
    ):
        found = pages(store, 2, **filters)
        assert [sequence for page in found for sequence in page] == expected, filters
        assert all(len(page) == 2 for page in found[:-1]), filters


def test_words_are_searched_in_title_and_text(backend: Backend, store: Store, new_job: NewJob) -> None:
    texts = {
        1: ("A Lighthouse", "at dusk, red light (warm:1.2)"),
        2: ("Straße", "ein LEUCHTTURM bei Nacht"),
        3: ("夜晚的灯塔", "一座灯塔，海浪 lighthouse-keeper"),
        4: ("", 'drop table "job" -- * OR NEAR(a b) ^x _y_'),
        5: ("", ""),
    }
    for number, (title, text) in texts.items():
        failed = JobState.FAILED if number == 3 else JobState.QUEUED
        job = new_job(number, title=title, labels=("x",) if number > 2 else (), state=failed, owner="bob")
        put(store, InsertJob(job, b"", b"", text))
    store = backend.restart(store)
    for query, expected in (
        ("lighthouse", [3, 1]), ("LIGHT", [3, 1]), ("light dusk", [1]), ("dusk red", [1]), ("red-light", [1]),
        ("light-red", []), ("li", []), ("at", [1]), ("house", []), ("strasse", [2]), ("leuchtturm", [2]),
        ("灯塔", [3]), ("灯", [3]), ("塔灯", []), ("海浪 夜晚", [3]), ("keeper", [3]), ("lighthouse-keep", [3]),
        ("drop table", [4]), ('"job"', [4]), ("job*", [4]), ("NEAR(", [4]), ("y", [4]), ("OR", [4]), ("NOT", []),
        ("1.2", [1]), ("!!!", [5, 4, 3, 2, 1]), ("", [5, 4, 3, 2, 1]), ("ﬁ", []), ("ＤＲＯＰ", [4]),
    ):  # fmt: skip
        found = [sequence for page in pages(store, 2, text=query) for sequence in page]
        assert found == expected, query
    for filters, expected in (
        ({"text": "lighthouse", "states": (JobState.FAILED,)}, [3]),
        ({"text": "lighthouse", "label": "x", "owner": "bob"}, [3]),
        ({"text": "lighthouse", "owner": "ann"}, []),
        ({"text": "lighthouse", "template": "t"}, []),
        ({"text": "lighthouse", "until_utc_ms": 1_700_000_000_002}, [1]),
    ):
        assert [sequence for page in pages(store, 2, **filters) for sequence in page] == expected, filters
    ended = dataclasses.replace(new_job(1, title="A Lighthouse", owner="bob"), state=JobState.CANCELLED)
    put(store, UpdateJob(ended), DeleteJob(ended.job_id))
    assert pages(store, 9, text="lighthouse") == [[3]]


@pytest.mark.parametrize("after", ["0", "-1", "01", "x", "1.0", " 1", "٣", "4", "9" * 19, "9" * 64, "1\n"])
def test_a_page_key_that_was_never_given_is_refused(store: Store, new_job: NewJob, after: str) -> None:
    put(store, *(insert(new_job(n)) for n in range(1, 4)))
    with pytest.raises(ValueError, match="no page ends at"):
        store.page(Wanted(), after=after, limit=10)
    assert store.last_sequence() == 3
