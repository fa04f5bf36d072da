"""RQ with its worker that does not fork, SimpleWorker, which its documentation names for many short jobs; jobs are
put by the hundred with `enqueue_many`."""

from __future__ import annotations

import time
from typing import Any


def nothing(workflow: Any) -> int:
    return len(workflow)


def client(url: str) -> Any:
    from redis import Redis
    from rq import Queue
    from rq.registry import FinishedJobRegistry

    redis = Redis.from_url(url)
    queue = Queue("bench", connection=redis)
    over = FinishedJobRegistry(queue=queue)

    def run(workflows: list[Any]) -> None:
        before = over.get_job_count(cleanup=False)
        for begin in range(0, len(workflows), 100):
            some = workflows[begin : begin + 100]
            queue.enqueue_many([Queue.prepare_data(nothing, (workflow,), result_ttl=600) for workflow in some])
        until = time.monotonic() + 60
        while over.get_job_count(cleanup=False) < before + len(workflows):
            if time.monotonic() > until:
                raise SystemExit("bench: RQ does not finish its jobs")
            time.sleep(0.002)

    return run
