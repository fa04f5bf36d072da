"""Small files that are durable before their places are: what was said to be stored depends on no later sync."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broker.protocol.errors import StoreError
from broker.protocol.files import AT_ONCE_BYTES
from broker.store import files
from broker.store.files import FileProblem, FileStore, Partial
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


def begun(store: FileStore, data: bytes) -> Partial:
    partial = store.begin(sha256_of(data), len(data))
    partial.write(data[partial.offset :])
    return partial


def keep(store: FileStore, data: bytes = DATA) -> str:
    partial = begun(store, data)
    partial.finish(at_once=True)
    return partial.sha256


def place(root: Path, data: bytes = DATA) -> Path:
    return root / sha256_of(data)[:2] / sha256_of(data)


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("data", [b"x", DATA, os.urandom(AT_ONCE_BYTES)], ids=["one", "some", "most"])
@pytest.mark.parametrize("left", [None, 0, 200], ids=["no name", "nothing", "a part"])
def test_what_a_power_cut_leaves_of_the_file_does_not_matter(
    store: FileStore, root: Path, data: bytes, left: int | None
) -> None:
    keep(store, data)
    assert store.has(sha256_of(data)) and place(root, data).read_bytes() == data
    if left is None:
        place(root, data).rename(root / "tmp" / sha256_of(data))
        (root / "tmp" / sha256_of(data)).write_bytes(data[: len(data) // 2])
    else:
        place(root, data).write_bytes(data[:left])
    later = FileStore(root)
    assert later.has(sha256_of(data)) and place(root, data).read_bytes() == data
    assert list((root / "tmp").iterdir()) == []
    place(root, data).unlink()
    assert not FileStore(root).has(sha256_of(data)), "put back once, it does not come again"


def test_it_has_its_name_only_once_it_is_durable(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noted(name: str, call: Callable[..., None]) -> Callable[..., None]:
        def do(*given: Any) -> None:
            order.append(name)
            call(*given)

        return do

    monkeypatch.setattr(os, "fdatasync", noted("sync", os.fdatasync))
    monkeypatch.setattr(os, "rename", noted("name", os.rename))
    keep(store)
    assert order == ["sync", "name"]


def test_what_is_settled_does_not_come_back_once_it_is_deleted(store: FileStore, root: Path) -> None:
    keep(store)
    store.settle()
    assert not store.unsettled
    place(root).unlink()
    assert not FileStore(root).has(sha256_of(DATA))


def test_a_slot_is_free_only_once_file_and_folder_are_synced(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for broken in ("sync_file", "sync_folder"):
        keep(store)
        with monkeypatch.context() as patched:
            patched.setattr(files, broken, failing(errno.EIO))
            with pytest.raises(StoreError, match="cannot keep files there: Input/output error"):
                store.settle()
        place(root).unlink()
        assert FileStore(root).has(sha256_of(DATA))
        store.settle()


def test_a_torn_slot_is_as_good_as_empty(store: FileStore, root: Path) -> None:
    keep(store)
    content = (root / "journal").read_bytes()
    place(root).unlink()
    at = content.index(DATA)
    for begin in (0, at, at + len(DATA) - 1):
        (root / "journal").write_bytes(content[:begin] + bytes([content[begin] ^ 1]) + content[begin + 1 :])
        assert not FileStore(root).has(sha256_of(DATA))
    (root / "journal").write_bytes(content)
    assert FileStore(root).has(sha256_of(DATA))


def test_with_the_journal_full_a_file_is_synced_where_it_lies(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(SLOTS):
        assert store.crowded is (number >= SLOTS // 2)
        keep(store, b"%d" % number)
    synced: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_folder", synced.append)
        keep(store)
    assert synced == [str(place(root).parent)]
    store.settle()
    assert not store.crowded
    assert all(store.has(sha256_of(b"%d" % number)) for number in range(SLOTS))


@pytest.mark.parametrize("broken", ["pwrite", "fdatasync", "rename"])
def test_a_disk_that_refuses_is_told_and_nothing_is_kept(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    for number, code in ((errno.ENOSPC, "full"), (errno.EIO, "damaged")):
        partial = begun(store, DATA)
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, failing(number))
            with pytest.raises(FileProblem) as caught:
                partial.finish(at_once=True)
        assert caught.value.code == code
        assert not store.has(sha256_of(DATA)) and not store.unsettled
        assert list((root / "tmp").iterdir()) == []


def test_other_bytes_than_promised_are_not_kept(store: FileStore) -> None:
    partial = store.begin(sha256_of(b"right"), 5)
    partial.write(b"wrong")
    with pytest.raises(FileProblem, match="these 5 bytes have the sha256"):
        partial.finish(at_once=True)
    assert not store.has(sha256_of(b"right")) and not store.unsettled


def test_a_start_that_cannot_put_it_back_says_so(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store)
    monkeypatch.setattr(os, "rename", failing(errno.ENOSPC))
    with pytest.raises(StoreError, match=r"files: cannot keep files there: .*No space left"):
        FileStore(root)
    monkeypatch.undo()
    assert FileStore(root).has(sha256_of(DATA))


def test_a_file_removed_by_hand_is_not_waited_for(store: FileStore, root: Path) -> None:
    keep(store)
    place(root).unlink()
    store.settle()
    assert not store.unsettled
