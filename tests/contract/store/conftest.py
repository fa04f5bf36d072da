"""Both stores behind one way to open, crash and restart them, and a builder of records."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from broker.core.model import JobRecord
from broker.protocol.records import Needs
from broker.store.api import Store
from broker.store.memory import MemoryStore
from broker.store.sqlite import SqliteStore

NEEDS = Needs(nodes=("KSampler",), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="")


class Backend(Protocol):
    def open(self) -> Store:
        """A new, empty store."""

    def crash(self, store: Store) -> Store:
        """What another process finds after the one with `store` died now."""

    def restart(self, store: Store) -> Store:
        """What another process finds after the one with `store` closed it."""


class MemoryBackend:
    def open(self) -> Store:
        return MemoryStore()

    def crash(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        return store.crash()

    restart = crash


class SqliteBackend:
    def __init__(self, folder: Path) -> None:
        self._paths = (folder / str(n) / "fleet.db" for n in itertools.count())
        self._opened: list[tuple[Path, SqliteStore]] = []

    def open(self) -> Store:
        return self._open(next(self._paths))

    def crash(self, store: Store) -> Store:
        # The files as they are, while the store has them open, are what a killed process leaves.
        path, copy = self._path_of(store), next(self._paths)
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        store.close()
        return self._open(copy)

    def restart(self, store: Store) -> Store:
        store.close()
        return self._open(self._path_of(store))

    def close(self) -> None:
        for _, store in self._opened:
            store.close()

    def _open(self, path: Path) -> Store:
        store = SqliteStore(path)
        self._opened.append((path, store))
        return store

    def _path_of(self, wanted: Store) -> Path:
        return next(path for path, store in self._opened if store is wanted)


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    sqlite = SqliteBackend(tmp_path)
    yield sqlite
    sqlite.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "fleet.db"


@pytest.fixture
def new_job() -> Callable[..., JobRecord]:
    def build(sequence: int, **fields: Any) -> JobRecord:
        usual: dict[str, Any] = {
            "sequence": sequence,
            "job_id": f"00000000-0000-0000-0000-{sequence:012}",
            "owner": "ann",
            "idempotency_key": f"key {sequence}",
            "body_sha256": "0" * 64,
            "title": "a lighthouse",
            "template": "",
            "labels": (),
            "priority": 0,
            "needs": NEEDS,
            "files": (),
            "created_utc_ms": 1_700_000_000_000 + sequence,
        }
        return JobRecord(**(usual | fields))

    return build
