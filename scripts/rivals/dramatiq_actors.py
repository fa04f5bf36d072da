"""Dramatiq with Redis and its result backend; eight threads a process, as is its default."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend


def made(url: str) -> Any:
    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    dramatiq.set_broker(broker)
    return dramatiq.actor(nothing, store_results=True, queue_name="bench")


def nothing(workflow: Any) -> int:
    return len(workflow)


def client(url: str) -> Any:
    actor = made(url)

    def run(workflows: list[Any]) -> None:
        for message in [actor.send(workflow) for workflow in workflows]:
            message.get_result(block=True, timeout=60_000)

    return run


if "BENCH_REDIS" in os.environ:
    actor = made(os.environ["BENCH_REDIS"])
