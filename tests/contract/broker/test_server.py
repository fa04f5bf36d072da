"""The broker's sockets under CURVE: whose key leaves the list while it is connected is told so."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from broker import server
from broker.core.fleet import Fleet
from broker.core.rules import Rules
from broker.files import FileChannel
from broker.protocol.client import Statistics
from broker.protocol.codec import BROKER_TO_CLIENT, BROKER_TO_WORKER, decode, encode
from broker.protocol.events import TOPIC_JOB
from broker.protocol.worker import Announce, Beat, Heartbeat, Invalid, Refused, Welcome
from broker.runtime import keys, sockets
from broker.runtime.config import Config
from broker.runtime.gate import Allowed
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from broker.runtime.stop import Stop
from broker.store.files import FileStore
from broker.store.memory import MemoryStore
from broker.turn import Turn
from tests.core.broker.given import STATS, Given

LONG_MS = 15_000
ANY_PORT = Network(clients="tcp://127.0.0.1:*", workers="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*")


def of(config: Config, name: str) -> Identity:
    found = keys.identity(config, name)
    assert found is not None
    return found


@contextmanager
def serving(config: Config) -> Iterator[Network]:
    """A server in a thread; where it listens."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    now = server.now()
    fleet = Fleet(Rules(), "e" * 32, jitter=lambda: 0.5, counts={}, last_sequence=0, now=now)
    turn = Turn(fleet, MemoryStore(), lambda sha256: False)
    allowed = Allowed(config.security.keys)
    with Stop() as stop:
        made = server.Server(context, ANY_PORT, of(config, "broker"), allowed, turn)
        router = sockets.router(context, "files", ANY_PORT, of(config, "broker"))
        files = FileChannel(router, FileStore(config.broker.data / "files"), config.files)
        files.start()
        thread = threading.Thread(target=made.run, args=(stop, files, lambda: True))
        thread.start()
        try:
            endpoints: dict[str, Any] = made.endpoints()
            yield dataclasses.replace(ANY_PORT, **endpoints)
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


def test_workers_go_unheard_for_a_moment_and_clients_never(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hushed = threading.Event()

    def hush_ms(fleet: Fleet) -> int:
        return 300 if hushed.is_set() else 0

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
