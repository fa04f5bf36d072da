"""Stores in memory whose disk is slow, or fails."""

from __future__ import annotations

from typing import Self

from broker.protocol.errors import StoreError
from broker.store.memory import MemoryStore


class OddStore(MemoryStore):
    @classmethod
    def of(cls, store: MemoryStore) -> Self:
        """The same tables behind other manners."""
        odd = cls()
        odd.__dict__.update(store.__dict__)
        return odd


class SlowStore(OddStore):
    """Knows whether it has been asked to commit: that takes its time."""

    committed = False

    def commit(self) -> None:
        super().commit()
        self.committed = True


class FailingStore(OddStore):
    """Its next commit fails for good; whether what it held is durable, nobody is told."""

    durable = False

    def commit(self) -> None:
        if self.durable:
            super().commit()
        raise StoreError("the disk failed")
