"""`python -m broker`: flags and settings in, one ready line out, then the loop until SIGTERM."""

from __future__ import annotations

import gc
import logging
import random
import secrets
import sys

import zmq

from broker.core.fleet import Fleet
from broker.core.rules import Rules
from broker.files import FileChannel
from broker.keeping import Keeping
from broker.runtime import config, descriptors, keys, logs, memory, sockets
from broker.runtime.entry import ready, run_main
from broker.runtime.gate import Allowed
from broker.runtime.settings import Broker, Placement
from broker.runtime.stop import Stop
from broker.searches import Searches
from broker.server import Server, now
from broker.store.backup import DATABASE
from broker.store.files import FileStore
from broker.store.room import FILES_SHARE, Room
from broker.store.sqlite import SqliteStore
from broker.turn import Turn

log = logging.getLogger(__name__)


def rules(settings: Broker, placement: Placement) -> Rules:
    """The core's figures, from [broker] and [placement]."""
    return Rules(
        heartbeat_ms=settings.heartbeat_ms,
        lease_ms=settings.lease_ms,
        accept_ms=settings.accept_ms,
        max_attempts=settings.attempts,
        max_deaths=settings.deaths,
        breaker=settings.breaker,
        backoff_base_ms=settings.backoff_ms,
        backoff_cap_ms=settings.backoff_max_ms,
        max_queued=settings.max_queued,
        max_queued_per_owner=settings.max_queued_per_owner,
        start_to_close_ms=settings.start_to_close_ms,
        stall_ms=settings.stall_ms,
        policy=placement.policy,
        max_running_per_owner=placement.max_running_per_owner,
        weights=dict(placement.weights),
    )


def main() -> None:
    settings = config.from_arguments("broker", "The broker of a comfyfleet: the one process that owns the queue.", {})
    logs.start(settings.log)
    identity = keys.identity(settings, "broker")
    allowed = Allowed(settings.security.keys) if identity is not None else None
    log.info("settings", extra={"fields": settings.effective()})
    descriptors.allow_many()
    store = SqliteStore(settings.broker.data / DATABASE)
    fleet = Fleet(
        rules(settings.broker, settings.placement),
        secrets.token_hex(16),
        jitter=random.SystemRandom().random,
        counts=store.counts(),
        last_sequence=store.last_sequence(),
        now=now(),
    )
    # What is recovered stays for long: the collector neither looks through it while it grows, nor ever after.
    gc.disable()
    fleet.recover(store.live(), store.notes(), store.figures(), now())
    gc.freeze()
    gc.enable()
    least_bytes = settings.broker.min_free_bytes
    room = Room(settings.broker.data, least_bytes)
    files = FileStore(
        settings.broker.data / "files",
        max_file_bytes=settings.files.max_file_bytes,
        reserve_bytes=least_bytes // FILES_SHARE,
    )
    # The file channel's thread shares the interpreter: at the default 5 ms the core waits longer for its turn of the
    # lock than a whole turn of its own takes.
    sys.setswitchinterval(0.0005)
    context = zmq.Context[zmq.Socket[bytes]]()
    with Stop() as stop:
        searches = Searches(settings.broker.data / DATABASE)
        turn = Turn(fleet, store, files.has, room.is_full, searches.ask)
        keep_for_ms, keep_jobs = settings.broker.keep_for_ms, settings.broker.keep_jobs
        keeping = Keeping(turn, files, keep_for_ms=keep_for_ms, keep_jobs=keep_jobs, now=now())
        server = Server(context, settings.network, identity, allowed, turn, keeping=keeping, searches=searches)
        # Its own list of keys: the channel runs in a thread of its own.
        theirs = Allowed(settings.security.keys) if identity is not None else None
        router = sockets.router(context, "files", settings.network, identity)
        channel = FileChannel(router, files, settings.files, theirs)
        channel.start()
        memory.stay_small()
        try:
            ready("broker", **server.endpoints(), files=channel.endpoint)
            server.run(stop, channel, lambda: channel.alive and searches.alive)
        finally:
            channel.stop()
            server.close()
            context.term()
            searches.close()
            store.close()


if __name__ == "__main__":
    run_main(main)
