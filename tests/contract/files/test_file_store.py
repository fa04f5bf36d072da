"""The folder of files: nothing has a name before it is whole, checked and on disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.protocol.errors import StoreError
from broker.store import files
from broker.store.disk import sync_folder
from broker.store.files import FileProblem, FileStore


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep(store: FileStore, data: bytes) -> str:
    partial = store.begin(sha256_of(data), len(data))
    partial.write(data[partial.offset :])
    partial.finish()
    return partial.sha256


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files", reserve_bytes=0)


@pytest.fixture
def tmp(store: FileStore, tmp_path: Path) -> Path:
    return tmp_path / "files" / "tmp"


@contextlib.contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(FileProblem) as caught:
        yield
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(300_000)], ids=["empty", "one byte", "more"])
def test_a_file_comes_back_and_survives_a_restart(store: FileStore, tmp_path: Path, data: bytes) -> None:
    sha256 = keep(store, data)
    for again in (store, FileStore(tmp_path / "files")):
        assert again.has(sha256)
        assert again.size(sha256) == len(data)
        assert again.read(sha256, 0, len(data)) == data
        assert again.read(sha256, 1, 5) == data[1:6]
        assert again.read(sha256, len(data), 5) == b""
    assert (tmp_path / "files" / sha256[:2] / sha256).read_bytes() == data
    assert list((tmp_path / "files" / "tmp").iterdir()) == []


def test_a_file_is_not_there_until_it_is_finished(store: FileStore) -> None:
    data = b"picture"
    partial = store.begin(sha256_of(data), len(data))
    for part in (data[:3], data[3:]):
        partial.write(part)
        assert not store.has(partial.sha256)
        assert store.size(partial.sha256) is None
    with refused("not_found"):
        store.read(partial.sha256, 0, 1)
    partial.finish()
    assert store.has(partial.sha256)


def test_a_broken_transfer_goes_on_where_it_stopped(store: FileStore, tmp_path: Path) -> None:
    data = b"first half, second half"
    partial = store.begin(sha256_of(data), len(data))
    partial.write(data[:11])
    partial.close()
    later = FileStore(tmp_path / "files", reserve_bytes=0).begin(sha256_of(data), len(data))
    assert later.offset == 11
    later.write(data[11:])
    later.finish()
    assert store.read(sha256_of(data), 0, 100) == data


def test_a_partial_longer_than_the_file_begins_anew(store: FileStore, tmp: Path) -> None:
    data = b"short"
    (tmp / sha256_of(data)).write_bytes(b"much longer than that")
    assert store.begin(sha256_of(data), len(data)).offset == 0
    assert keep(store, data) == sha256_of(data)


def test_other_bytes_than_promised_never_get_the_name(store: FileStore, tmp: Path) -> None:
    sha256 = sha256_of(b"right")
    partial = store.begin(sha256, 5)
    partial.write(b"wrong")
    with refused("digest_mismatch"):
        partial.finish()
    assert not store.has(sha256)
    assert list(tmp.iterdir()) == []
    assert keep(store, b"right") == sha256


def test_a_stored_file_that_lost_bytes_is_replaced_by_a_new_upload(store: FileStore, tmp_path: Path) -> None:
    sha256 = keep(store, b"picture")
    (tmp_path / "files" / sha256[:2] / sha256).write_bytes(b"pic")
    assert store.size(sha256) == 3
    keep(store, b"picture")
    assert store.read(sha256, 0, 100) == b"picture"


def test_too_large_and_too_full_are_refused_before_a_byte_is_taken(tmp_path: Path) -> None:
    small = FileStore(tmp_path / "a", max_file_bytes=10, reserve_bytes=0)
    small.begin("a" * 64, 10).close()
    with refused("too_large"):
        small.begin("a" * 64, 11)
    with refused("full"):
        FileStore(tmp_path / "b", reserve_bytes=1 << 60).begin("a" * 64, 1)


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_a_write_is_a_problem_that_says_so(
    store: FileStore, tmp: Path, file_size_limit: Callable[[int], None]
) -> None:
    partial = store.begin("a" * 64, 100_000)
    file_size_limit(8_192)
    with refused("damaged"):
        partial.write(b"x" * 100_000)
    file_size_limit(resource.RLIM_INFINITY)
    partial.discard()
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "full"), (errno.EIO, "damaged"), (errno.EMFILE, "busy")])
def test_a_sync_that_fails_keeps_nothing(
    store: FileStore, tmp: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def failing(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    partial = store.begin(sha256_of(b"x"), 1)
    partial.write(b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with refused(code):
            partial.finish()
    assert not store.has(partial.sha256)
    assert list(tmp.iterdir()) == []


def test_a_name_whose_folder_could_not_be_synced_is_taken_back(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> None:
        raise OSError(errno.EIO, "folder")

    partial = store.begin(sha256_of(b"x"), 1)
    partial.write(b"x")
    monkeypatch.setattr(files, "sync_folder", failing)
    with refused("damaged"):
        partial.finish()
    assert not store.has(partial.sha256)


def test_old_partials_are_swept_and_young_ones_kept(store: FileStore, tmp: Path, tmp_path: Path) -> None:
    for name, age_s in (("a" * 64, 2 * files.KEEP_PARTIAL_S), ("b" * 64, 60)):
        store.begin(name, 5).close()
        stat = (tmp / name).stat()
        os.utime(tmp / name, (stat.st_atime, stat.st_mtime - age_s))
    FileStore(tmp_path / "files")
    assert [path.name for path in tmp.iterdir()] == ["b" * 64]
    store.sweep(older_than_s=-1)
    assert list(tmp.iterdir()) == []


def test_what_cannot_be_swept_keeps_nothing_else(store: FileStore, tmp: Path) -> None:
    for number in range(9):
        (tmp / f"folder {number}").mkdir()
        store.begin(f"{number:064x}", 5).close()
    store.sweep(older_than_s=-1)
    assert {path.name for path in tmp.iterdir()} == {f"folder {number}" for number in range(9)}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "/x", "tmp"])
def test_only_a_sha256_reaches_the_disk(store: FileStore, name: str) -> None:
    for use in (store.has, store.size, lambda name: store.read(name, 0, 1), lambda name: store.begin(name, 1)):
        with pytest.raises(ValueError, match="not a sha256"):
            use(name)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")
    with pytest.raises(StoreError, match=r"files: cannot keep files there"):
        FileStore(tmp_path / "files")


def test_a_file_is_not_had_while_a_power_cut_could_still_take_its_name(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def looking(folder: str) -> None:
        seen.append(
            ((Path(folder) / sha256_of(b"x")).exists(), store.has(sha256_of(b"x")), store.claim(sha256_of(b"x")))
        )
        sync_folder(folder)

    monkeypatch.setattr(files, "sync_folder", looking)
    sha256 = keep(store, b"x")
    assert seen == [(True, False, None)]
    assert store.has(sha256)
