"""Small files that are durable before they have a place of their own: what was said to be stored depends on no later
sync."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broker.protocol.files import AT_ONCE_BYTES
from broker.store import journal
from broker.store.files import FileProblem, FileStore
from broker.store.journal import SLOTS

DATA: Final = os.urandom(300)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def store(root: Path) -> FileStore:
    return FileStore(root, reserve_bytes=0)


def keep(store: FileStore, data: bytes = DATA) -> bool:
    return store.keep(sha256_of(data), data)


def place(root: Path, data: bytes = DATA) -> Path:
    return root / sha256_of(data)[:2] / sha256_of(data)


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("data", [b"", b"x", DATA, os.urandom(AT_ONCE_BYTES)], ids=["empty", "one", "some", "most"])
def test_what_is_kept_is_there_at_once_and_after_a_power_cut(store: FileStore, root: Path, data: bytes) -> None:
    assert keep(store, data)
    for again in (store, FileStore(root)):
        assert again.has(sha256_of(data)) and again.claim(sha256_of(data)) == len(data)
        assert again.read(sha256_of(data), 0, AT_ONCE_BYTES) == data
        assert again.read(sha256_of(data), 1, 5) == data[1:6]
        assert not place(root, data).exists()
    again.settle()
    assert not again.unsettled and place(root, data).read_bytes() == data
    assert again.read(sha256_of(data), 1, 5) == data[1:6]
    assert list((root / "tmp").iterdir()) == []


def test_it_is_there_only_once_the_journal_is_synced(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, sync = [], os.fdatasync

    def looking(fd: int) -> None:
        seen.append(store.has(sha256_of(DATA)))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", looking)
    assert keep(store) and keep(store)
    assert seen == [False], "the second time it is there already"
    assert store.has(sha256_of(DATA))


def test_what_has_its_place_does_not_come_back_once_it_is_deleted(store: FileStore, root: Path) -> None:
    keep(store)
    store.settle()
    place(root).unlink()
    assert not store.has(sha256_of(DATA)) and not FileStore(root).has(sha256_of(DATA))


def test_what_a_power_cut_left_of_an_earlier_try_does_not_matter(store: FileStore, root: Path) -> None:
    keep(store)
    (root / "tmp" / f"{sha256_of(DATA)}.kept").write_bytes(b"something else")
    (root / "tmp" / sha256_of(DATA)).write_bytes(b"of an upload")
    later = FileStore(root)
    later.settle()
    assert place(root).read_bytes() == DATA
    assert [path.name for path in (root / "tmp").iterdir()] == [sha256_of(DATA)]


@pytest.mark.parametrize("broken", ["open", "pwrite", "fsync", "rename"])
def test_what_cannot_be_put_in_its_place_stays_in_the_journal(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    keep(store)
    for number, code in ((errno.ENOSPC, "full"), (errno.EIO, "damaged")):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, failing(number))
            with pytest.raises(FileProblem) as caught:
                store.settle()
        assert caught.value.code == code
        assert not place(root).exists() and list((root / "tmp").iterdir()) == []
        assert store.has(sha256_of(DATA)) and FileStore(root).has(sha256_of(DATA))
    store.settle()
    assert place(root).read_bytes() == DATA


def test_a_torn_slot_is_as_good_as_empty(store: FileStore, root: Path) -> None:
    keep(store)
    content = (root / "journal").read_bytes()
    at = content.index(DATA)
    for begin in (0, 33, 35, at, at + len(DATA) - 1):
        (root / "journal").write_bytes(content[:begin] + bytes([content[begin] ^ 1]) + content[begin + 1 :])
        assert journal.found(root / "journal") == {}
    (root / "journal").write_bytes(content)
    assert journal.found(root / "journal") == {sha256_of(DATA): (0, DATA)}
    assert journal.found(root / "none") == {}


def test_slots_are_free_again_once_their_files_have_places(store: FileStore, root: Path) -> None:
    for number in range(SLOTS):
        assert store.crowded is (number >= SLOTS // 2)
        assert keep(store, b"%d" % number)
    assert not keep(store)
    store.settle()
    assert not store.crowded and keep(store)
    assert FileStore(root).has(sha256_of(DATA))
    assert all(store.has(sha256_of(b"%d" % number)) for number in range(SLOTS))


@pytest.mark.parametrize("broken", ["pwrite", "fdatasync"])
def test_a_disk_that_refuses_is_told_and_nothing_is_kept(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    for number, code in ((errno.ENOSPC, "full"), (errno.EIO, "damaged")):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, failing(number))
            with pytest.raises(FileProblem) as caught:
                keep(store)
        assert caught.value.code == code
        assert not store.has(sha256_of(DATA)) and not store.unsettled


def test_other_bytes_than_promised_and_more_than_there_is_room_for_are_not_kept(tmp_path: Path) -> None:
    for reserve_bytes, code in ((0, "digest_mismatch"), (1 << 60, "full")):
        store = FileStore(tmp_path / code, reserve_bytes=reserve_bytes)
        with pytest.raises(FileProblem) as caught:
            store.keep(sha256_of(b"right"), b"wrong")
        assert caught.value.code == code
        assert not store.has(sha256_of(b"right")) and not store.unsettled
