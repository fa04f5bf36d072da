"""The broker with another store, to hold its own against: `python -m scripts.stores each` or `memory`, and its flags.

each: one commit for each job that is accepted. memory: nothing is durable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import broker.__main__
from broker.core.step import AddStory, Write
from broker.runtime.entry import run_main
from broker.store.memory import MemoryStore
from broker.store.sqlite import SqliteStore


class EachStore(SqliteStore):
    """Commits with the line that is the last of a submit's writes."""

    def apply(self, write: Write) -> None:
        super().apply(write)
        if isinstance(write, AddStory):
            self.commit()


def in_memory(path: Path) -> MemoryStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    return MemoryStore()


STORES: Final[dict[str, Any]] = {"each": EachStore, "memory": in_memory}


if __name__ == "__main__":
    store = STORES[sys.argv.pop(1)]
    vars(broker.__main__)["SqliteStore"] = store
    run_main(broker.__main__.main)
