"""Celery with Redis as broker and as result backend, set for many short tasks as its guide "Optimizing" says: a large
prefetch, acknowledged early, no events."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery


def made(url: str) -> Any:
    app = Celery("bench", broker=url, backend=url)
    app.conf.update(
        worker_prefetch_multiplier=64, task_acks_late=False, task_track_started=False, worker_send_task_events=False
    )
    app.task(name="nothing")(nothing)
    return app


def nothing(workflow: Any) -> int:
    return len(workflow)


def client(url: str) -> Any:
    """count -> so many tasks sent, and all results had."""
    app = made(url)

    def run(workflows: list[Any]) -> None:
        sent = [app.tasks["nothing"].delay(workflow) for workflow in workflows]
        for result in sent:
            result.get(timeout=60)
            result.forget()

    return run


if "BENCH_REDIS" in os.environ:
    app = made(os.environ["BENCH_REDIS"])
