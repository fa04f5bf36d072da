"""One fetch for all who ask at once, and for whoever asks within a minute; nothing that is too large, old or broken."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator

import gevent
import pytest

from web import shelf
from web.shelf import Shelf


class Away(Exception):
    """What is wrong with a fetch here."""


class Store:
    """Files in parts of three bytes, each of which takes a turn of the loop."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.fetched: Counter[str] = Counter()
        self.fails_after = 1 << 30

    def fetch(self, name: str) -> Iterator[tuple[int, bytes]]:
        self.fetched[name] += 1
        data = self.files[name]
        for at in range(0, max(len(data), 1), 3):
            gevent.sleep(0)
            if at >= self.fails_after:
                raise Away(name)
            yield len(data), data[at : at + 3]


def read(kept: Shelf, name: str) -> bytes:
    size, parts = kept.open(name)
    data = b"".join(parts)
    assert len(data) == size
    return data


def test_all_who_ask_at_once_share_a_fetch_and_whoever_asks_later_needs_none() -> None:
    store = Store(a=b"a lighthouse", empty=b"")
    kept = Shelf(store.fetch, (Away,))
    asking = [gevent.spawn(read, kept, "a") for _ in range(50)]
    assert [one.get() for one in asking] == [b"a lighthouse"] * 50
    assert read(kept, "a") == kept.whole("a") == b"a lighthouse"
    assert read(kept, "empty") == read(kept, "empty") == b""
    assert store.fetched == {"a": 1, "empty": 1}


def test_a_slow_reader_holds_up_nobody() -> None:
    kept = Shelf(Store(a=b"a lighthouse").fetch, (Away,))
    _, slow = kept.open("a")
    assert next(slow) == b"a l"
    assert read(kept, "a") == b"a lighthouse"
    assert b"".join(slow) == b"ighthouse"


@pytest.mark.parametrize("after", [0, 3])
def test_a_failure_is_told_to_all_and_kept_by_nobody(after: int) -> None:
    store = Store(a=b"a lighthouse")
    store.fails_after = after
    kept = Shelf(store.fetch, (Away,))
    asking = [gevent.spawn(read, kept, "a") for _ in range(5)]
    gevent.joinall(asking)
    assert all(isinstance(one.exception, Away) for one in asking)
    store.fails_after = 1 << 30
    assert read(kept, "a") == b"a lighthouse"


def test_large_files_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_FILE_BYTES", 5)
    store = Store(a=b"a lighthouse")
    kept = Shelf(store.fetch, (Away,))
    asking = [gevent.spawn(read, kept, "a") for _ in range(3)]
    assert [one.get() for one in asking] == [b"a lighthouse"] * 3
    assert kept.whole("a") is None and store.fetched["a"] == 3


def test_the_longest_unused_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_KEPT_BYTES", 8)
    store = Store(a=b"aaaa", b=b"bbbb", c=b"cccc")
    kept = Shelf(store.fetch, (Away,))
    for name in ("a", "b", "a", "c", "a"):
        read(kept, name)
    assert [name for name in "abc" if kept.whole(name) is not None] == ["a", "c"]
    assert store.fetched == {"a": 1, "b": 1, "c": 1}


def test_what_made_room_is_not_held_until_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_KEPT_BYTES", 8)
    store = Store(**{name: name.encode() * 4 for name in "abcdef"})
    kept, books = Shelf(store.fetch, (Away,)), weakref.WeakSet[object]()
    for name in store.files:
        read(kept, name)
        books.update(kept._books.values())
    gevent.sleep(0)  # their fetches have ended
    gc.collect()
    assert len(books) == 2


def test_what_is_old_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "KEPT_S", 0.01)
    store = Store(a=b"a lighthouse")
    kept = Shelf(store.fetch, (Away,))
    read(kept, "a")
    while kept.whole("a") is not None:
        gevent.sleep(0.005)
    assert read(kept, "a") == b"a lighthouse"
    assert store.fetched["a"] == 2
