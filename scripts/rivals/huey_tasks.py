"""Huey with SQLite in WAL mode and an fsync for each commit; worker threads that look for work every 2 ms."""

from __future__ import annotations

import os
from typing import Any

from huey import SqliteHuey


def made(path: str) -> tuple[Any, Any]:
    huey = SqliteHuey("bench", filename=path, fsync=True)
    return huey, huey.task()(nothing)


def nothing(workflow: Any) -> int:
    return len(workflow)


def client(path: str) -> Any:
    _, task = made(path)

    def run(workflows: list[Any]) -> None:
        for result in [task(workflow) for workflow in workflows]:
            result.get(blocking=True, timeout=60, backoff=1.0, max_delay=0.002)

    return run


if "BENCH_SQLITE" in os.environ:
    huey, _ = made(os.environ["BENCH_SQLITE"])
