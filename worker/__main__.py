"""`python -m worker`: flags and settings in, one ready line once it serves, then the loop until it is done.

SIGTERM drains: what waits goes back to the broker, what runs is finished. A second one ends the process at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import logging
import random
import secrets
from functools import partial

import zmq

from broker.protocol.errors import ConfigError
from broker.runtime import config, keys, logs, sockets
from broker.runtime.entry import ready, run_main
from broker.runtime.stop import Stop
from comfyui.client import LIMIT_S, ComfyClient
from comfyui.workflow import parse
from worker.core.link import Identity
from worker.core.machine import Machine
from worker.core.mending import Mending
from worker.core.progress import Pacing
from worker.courier import Courier
from worker.gpu import Gauge, nvml
from worker.loop import Loop

#: A call to ComfyUI may take at most this share of a lease, or heartbeats would come too late.
LEASE_SHARE = 0.4

log = logging.getLogger(__name__)


def main() -> int:
    settings = config.from_arguments(
        "worker",
        "A worker of a comfyfleet: drives one ComfyUI.",
        {"--name": "worker.name", "--comfyui": "worker.comfyui"},
    )
    logs.start(settings.log)
    identity = keys.identity(settings, settings.worker.name)
    log.info("settings", extra={"fields": settings.effective()})
    who = Identity(
        worker=settings.worker.name,
        session=secrets.token_hex(16),
        version=importlib.metadata.version("comfyfleet"),
        labels=settings.worker.labels,
        restartable=bool(settings.worker.restart),
    )
    pacing = Pacing(
        poll_ms=settings.worker.history_poll_ms,
        progress_per_s=settings.worker.progress_per_s,
        previews_per_s=settings.worker.previews_per_s,
    )
    machine = Machine(
        who,
        parse(importlib.resources.files("comfyui").joinpath("probe.json").read_bytes()),
        Mending(possible=who.restartable, patience_ms=settings.worker.restart_after_ms),
        prefetch=settings.broker.prefetch,
        pacing=pacing,
        draw=random.SystemRandom().random,
    )
    context = zmq.Context[zmq.Socket[bytes]]()
    dial = partial(sockets.dealer, context, network=settings.network, identity=identity)
    limit_s = min(LIMIT_S, settings.broker.lease_ms / 1_000 * LEASE_SHARE)
    try:
        client = ComfyClient(settings.worker.comfyui, client_id=machine.client_id, limit_s=limit_s)
    except ValueError as e:
        raise settings.error("worker.comfyui", str(e)) from e
    with Stop() as signals:
        loop = Loop(
            machine,
            client,
            Courier(lambda: dial("files", routing_id=secrets.token_hex(16).encode())),
            Gauge(nvml()),
            dial=partial(dial, "workers", routing_id=who.session.encode()),
            serves=lambda: ready("worker", name=who.worker, comfyui=settings.worker.comfyui),
            max_file_bytes=settings.files.max_file_bytes,
            keyed=identity is not None,
            restart=settings.worker.restart,
        )
        stop = loop.run(signals)
        context.term()
    if stop.failed:
        raise ConfigError(stop.why)
    log.info("left", extra={"fields": {"why": stop.why}})
    return 0


if __name__ == "__main__":
    run_main(main)
