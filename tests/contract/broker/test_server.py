"""The broker's sockets under CURVE: whose key leaves the list while it is connected is told so."""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from broker import server, turn
from broker.core.fleet import Fleet
from broker.core.rules import Rules
from broker.files import FileChannel
from broker.protocol.client import Done, JobReply, Pause, Statistics
from broker.protocol.codec import BROKER_TO_CLIENT, BROKER_TO_WORKER, decode, encode
from broker.protocol.events import TOPIC_JOB
from broker.protocol.worker import (
    Announce,
    Beat,
    Capabilities,
    Complete,
    Dispatch,
    Heartbeat,
    Invalid,
    Ready,
    Recorded,
    Refused,
    Welcome,
)
from broker.runtime import keys, sockets
from broker.runtime.config import Config
from broker.runtime.gate import Allowed
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from broker.runtime.stop import Stop
from broker.runtime.transfer import put_bytes
from broker.store.files import FileStore
from broker.store.memory import MemoryStore
from broker.turn import Turn
from tests.core.broker.given import NEEDS, OUTPUT, STATS, TIMINGS, Given, job_id, submit_of

LONG_MS = 15_000
RULES = Rules()
ANY_PORT = Network(
    clients="tcp://127.0.0.1:*", workers="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*", files="tcp://127.0.0.1:*"
)


def of(config: Config, name: str) -> Identity:
    found = keys.identity(config, name)
    assert found is not None
    return found


@contextmanager
def serving(config: Config, rules: Rules = RULES) -> Iterator[Network]:
    """A server in a thread; where it listens."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    now = server.now()
    fleet = Fleet(rules, "e" * 32, jitter=lambda: 0.5, counts={}, last_sequence=0, now=now)
    store = FileStore(config.broker.data / "files")
    turning = Turn(fleet, MemoryStore(), store.has)
    allowed = Allowed(config.security.keys)
    with Stop() as stop:
        made = server.Server(context, ANY_PORT, of(config, "broker"), allowed, turning)
        router = sockets.router(context, "files", ANY_PORT, of(config, "broker"))
        files = FileChannel(router, store, config.files)
        files.start()
        thread = threading.Thread(target=made.run, args=(stop, files, lambda: True))
        thread.start()
        try:
            endpoints: dict[str, Any] = made.endpoints()
            yield dataclasses.replace(ANY_PORT, **endpoints, files=files.endpoint)
        finally:
            signal.raise_signal(signal.SIGTERM)
            thread.join()
            files.stop()
            made.close()
            context.term()


@contextmanager
def dialled(name: str, network: Network, identity: Identity, session: str) -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = sockets.dealer(context, name, network, identity, session.encode())
    socket.linger = 0
    try:
        yield socket
    finally:
        socket.close()
        context.term()


def answer(socket: zmq.Socket[bytes], message: Any, allowed: frozenset[int]) -> Any:
    assert socket.poll(LONG_MS, zmq.POLLOUT)
    socket.send_multipart(encode(message))
    assert socket.poll(LONG_MS)
    return decode(socket.recv_multipart(), allowed)


def test_a_key_that_left_the_list_is_told_so(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REVOKED_MS", 10 * LONG_MS)  # the connections stay
    gpu = Given().worker("gpu-1")
    statistics = Statistics(request_id="a" * 32)
    with (
        serving(config) as network,
        dialled("workers", network, of(config, "gpu-1"), gpu.session) as worker,
        dialled("clients", network, of(config, "web"), "f" * 32) as web,
    ):
        announce: Announce = gpu.introduction()
        assert isinstance(answer(worker, announce, BROKER_TO_WORKER), Welcome)
        assert answer(web, statistics, BROKER_TO_CLIENT).stats.workers == 1
        keys.revoke(config.security.keys, "gpu-1")
        keys.revoke(config.security.keys, "web")
        said = answer(worker, announce, BROKER_TO_WORKER)
        assert said == Refused(why="this key is not allowed any more", retry=False)
        refused = answer(web, statistics, BROKER_TO_CLIENT)
        assert isinstance(refused, Invalid)
        assert (refused.code, refused.detail) == ("FORBIDDEN", "this key is not allowed any more")


def test_a_result_counts_as_soon_as_its_file_is_there(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else would wake the broker before the test gives up."""
    monkeypatch.setattr(turn, "FILES_MS", 10 * LONG_MS)
    clocks = ("turn_ms", "lease_ms", "accept_ms", "stats_every_ms", "workers_every_ms", "outlook_every_ms")
    rules = Rules(**dict.fromkeys(clocks, 10 * LONG_MS))  # type: ignore[arg-type]
    gpu, data = Given().worker("gpu-1"), b"a picture"
    with (
        serving(config, rules) as network,
        dialled("workers", network, of(config, "gpu-1"), gpu.session) as worker,
        dialled("clients", network, of(config, "web"), "f" * 32) as web,
        dialled("files", network, of(config, "gpu-1"), "e" * 32) as files,
    ):
        assert isinstance(answer(worker, gpu.introduction(), BROKER_TO_WORKER), Welcome)
        worker.send_multipart(encode(Capabilities(digest=gpu.capabilities, nodes=NEEDS.nodes, models=())))
        worker.send_multipart(encode(Ready(serial=1, credits=1, seen=0)))
        assert isinstance(answer(web, submit_of(1), BROKER_TO_CLIENT), JobReply)
        assert worker.poll(LONG_MS)
        assert isinstance(decode(worker.recv_multipart(), BROKER_TO_WORKER), Dispatch)
        output = dataclasses.replace(OUTPUT, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        end = Complete(job_id=job_id(1), attempt=1, outputs=(output,), timings=TIMINGS)
        worker.send_multipart(encode(end))
        # Answered when what came before it was heard, and when no news wait: the broker sleeps again.
        assert isinstance(answer(worker, Heartbeat(stats=STATS, held=()), BROKER_TO_WORKER), Beat)
        assert isinstance(answer(web, Pause(request_id="c" * 32, worker=""), BROKER_TO_CLIENT), Done)
        put_bytes(files, data, "b" * 32)
        assert worker.poll(LONG_MS), "the broker has slept on"
        assert decode(worker.recv_multipart(), BROKER_TO_WORKER) == Recorded(job_id=job_id(1), attempt=1)


def test_workers_go_unheard_for_a_moment_and_clients_never(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hushed = threading.Event()

    def hush_ms(fleet: Fleet) -> int:
        return 1_500 if hushed.is_set() else 0

    monkeypatch.setattr(Fleet, "hush_ms", hush_ms)
    gpu = Given().worker("gpu-1")
    heartbeat = Heartbeat(stats=STATS, held=())
    with (
        serving(config) as network,
        dialled("workers", network, of(config, "gpu-1"), gpu.session) as worker,
        dialled("clients", network, of(config, "web"), "f" * 32) as web,
    ):
        assert isinstance(answer(worker, gpu.introduction(), BROKER_TO_WORKER), Welcome)
        hushed.set()
        for _ in range(2):
            assert isinstance(answer(worker, heartbeat, BROKER_TO_WORKER), Beat), "the hush ends by itself"
        worker.send_multipart(encode(heartbeat))
        asked = 0
        while not worker.poll(0):
            assert answer(web, Statistics(request_id="a" * 32), BROKER_TO_CLIENT).stats.workers == 1
            asked += 1
        assert asked > 1, "clients were let wait with the workers"
        assert isinstance(decode(worker.recv_multipart(), BROKER_TO_WORKER), Beat), "clients that ask do not prolong it"


def test_a_topic_that_nobody_publishes_is_not_kept() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    fleet = Fleet(Rules(), "e" * 32, jitter=lambda: 0.5, counts={}, last_sequence=0, now=server.now())
    made = server.Server(context, ANY_PORT, None, None, Turn(fleet, MemoryStore(), lambda sha256: False))
    watcher = sockets.subscriber(
        context, dataclasses.replace(ANY_PORT, events=made.endpoints()["events"]), None, [b"x" * 1_000, b"", TOPIC_JOB]
    )
    try:
        while TOPIC_JOB not in made._watched:
            assert made._events.poll(LONG_MS)
            made._note_watchers()
        assert made._watched == {TOPIC_JOB}
    finally:
        watcher.close()
        made.close()
        context.term()
