"""The worker's end of the file channel against a real one: a connection that the broker ignores is not kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from broker.files import FileChannel
from broker.protocol.codec import FILES_CLIENT_SENDS, decode, encode
from broker.protocol.files import Chunk, Have
from broker.runtime import sockets
from broker.runtime.settings import Files, Network
from broker.runtime.transfer import SILENCE_MS
from broker.store.files import FileStore
from worker.courier import Courier

#: A bound on liveness, never a measure.
PATIENCE_S = 30.0
CONTEXT: zmq.Context[zmq.Socket[bytes]] = zmq.Context()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files", reserve_bytes=0)


@pytest.fixture
def channel(store: FileStore) -> Iterator[FileChannel]:
    router = sockets.router(CONTEXT, "files", Network(files="tcp://127.0.0.1:*"), None)
    made = FileChannel(router, store, Files())
    made.start()
    yield made
    made.stop()


def dial(channel: FileChannel, routing_id: bytes) -> zmq.Socket[bytes]:
    return sockets.dealer(CONTEXT, "files", Network(files=channel.endpoint), None, routing_id)


def carry(courier: Courier, over: Callable[[], bool]) -> None:
    """Turn as the worker's loop does, on a clock that runs a hundred times as fast."""
    began_s = time.monotonic()
    while not over():
        elapsed_s = time.monotonic() - began_s
        assert elapsed_s < PATIENCE_S
        courier.socket.poll(10)
        courier.receive(int(elapsed_s * 100_000))
        courier.tick(int(elapsed_s * 100_000))


def test_a_transfer_leaves_a_connection_that_the_broker_ignores(channel: FileChannel, store: FileStore) -> None:
    # What a broker that slept past the transport's heartbeats sees: the new connection comes before the old one ends.
    old = dial(channel, b"same")
    assert old.poll(int(PATIENCE_S * 1_000), zmq.POLLOUT)
    names = [b"same", b"new"]
    courier = Courier(lambda: dial(channel, names.pop(0) if len(names) > 1 else names[0]))
    try:
        data = os.urandom(300_000)
        sha256 = hashlib.sha256(data).hexdigest()
        upload = courier.upload(sha256, len(data), lambda offset, size: data[offset : offset + size], 0)
        carry(courier, lambda: upload.over)
        assert upload.done
        assert names == [b"new"]
        assert store.size(sha256) == len(data)
    finally:
        courier.close()
        old.close()


def test_a_transfer_that_meets_nobody_tries_again_long_before_a_silence() -> None:
    courier = Courier(lambda: sockets.dealer(CONTEXT, "files", Network(files="tcp://127.0.0.1:1"), None, b"new"))
    try:
        courier.upload(hashlib.sha256(b"a").hexdigest(), 1, lambda _offset, _size: b"a", 1_000)
        due_ms = courier.deadline_ms()
        assert due_ms is not None
        assert due_ms < 1_000 + SILENCE_MS
    finally:
        courier.close()


def test_what_comes_after_a_silence_is_not_asked_for_in_vain() -> None:
    # A slow line that two transfers share: each chunk takes so long that the other's seems lost.
    with sockets.router(CONTEXT, "files", Network(files="tcp://127.0.0.1:*"), None) as broker:
        broker.rcvtimeo = int(PATIENCE_S * 1_000)
        network = Network(files=sockets.endpoint_of(broker))
        with contextlib.closing(Courier(lambda: sockets.dealer(CONTEXT, "files", network, None, b"w"))) as courier:
            assert courier.socket.poll(int(PATIENCE_S * 1_000), zmq.POLLOUT)
            data = b"a picture"
            taken: list[bytes] = []
            download = courier.download(hashlib.sha256(data).hexdigest(), taken.append, 1 << 20, 0)
            sender, *frames = broker.recv_multipart()
            asked = decode(frames, FILES_CLIENT_SENDS)
            broker.send_multipart(
                [sender, *encode(Have(request_id="f" * 32, sha256="f" * 64, size_bytes=1))]
            )  # to the other
            assert courier.socket.poll(int(PATIENCE_S * 1_000))
            assert not courier.receive(SILENCE_MS - 1)
            courier.tick(SILENCE_MS)
            _, *frames = broker.recv_multipart()
            assert decode(frames, FILES_CLIENT_SENDS).request_id != asked.request_id
            chunk = Chunk(request_id=asked.request_id, offset=0, size_bytes=len(data), data=data)
            broker.send_multipart([sender, *encode(chunk)])
            assert courier.socket.poll(int(PATIENCE_S * 1_000))
            assert courier.receive(SILENCE_MS + 1)
            assert download.done and taken == [data]


def test_a_disk_that_takes_no_more_ends_the_transfer_and_nothing_else(channel: FileChannel, store: FileStore) -> None:
    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = b"a picture"
    sha256 = hashlib.sha256(data).hexdigest()
    with contextlib.closing(store.begin(sha256, len(data))) as partial:
        partial.write(data)
        partial.finish()
    with contextlib.closing(Courier(lambda: dial(channel, secrets.token_hex(16).encode()))) as courier:
        download = courier.download(sha256, full, 1 << 20, 0)
        carry(courier, lambda: download.over)
        assert download.fault is not None and download.fault.errno == errno.ENOSPC and not download.done
        taken: list[bytes] = []
        again = courier.download(sha256, taken.append, 1 << 20, 0)
        carry(courier, lambda: again.over)
        assert again.done and taken == [data]
