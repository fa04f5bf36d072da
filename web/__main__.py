"""`python -m web`: settings in, one ready line out, then the page and the API until SIGTERM."""

# ruff: noqa: E402  # gevent must replace the standard library's blocking parts before anything imports them
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging

import gevent
from gevent.event import AsyncResult
from gevent.socket import wait_read

from broker.runtime import config, descriptors, keys, logs, memory
from broker.runtime.entry import ready, run_main
from broker.runtime.stop import Stop
from web.process import Web

log = logging.getLogger(__name__)


def main() -> int:
    settings = config.from_arguments(
        "web", "A web process of a comfyfleet: the page and the API.", {"--host": "web.host", "--port": "web.port"}
    )
    logs.start(settings.log)
    log.info("settings", extra={"fields": settings.effective()})
    descriptors.allow_many()
    with Stop() as stop:
        web = Web(settings, keys.identity(settings, "web"))
        ended: AsyncResult[int] = AsyncResult()
        web.start(lambda: ended.set(1))
        gevent.spawn(_await_stop, stop, ended)
        memory.stay_small()
        ready("web", url=web.url)
        status = ended.get()
        log.info("stopping")
        web.stop()
    return status if status is not None else 1


def _await_stop(stop: Stop, ended: AsyncResult[int]) -> None:
    wait_read(stop.fileno())
    ended.set(0)


if __name__ == "__main__":
    run_main(main)
