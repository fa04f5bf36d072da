"""`python -m web`: settings in, one ready line out, then the page and the API until SIGTERM."""

# ruff: noqa: E402  # gevent must replace the standard library's blocking parts before anything imports them
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import logging
import resource

import gevent
from gevent.event import AsyncResult
from gevent.socket import wait_read

from broker.runtime import config, keys, logs, memory
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
    _raise_descriptors()
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


def _raise_descriptors() -> None:
    """Each browser costs one descriptor; the usual soft limit of 1024 would be the first thing to give way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    run_main(main)
