"""The files socket over a real wire: whole processes' worth of sockets and threads, small files."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import zmq

from broker.files import FileChannel
from broker.protocol.codec import FILES_BROKER_SENDS, decode, encode
from broker.protocol.errors import ConfigError
from broker.protocol.files import AT_ONCE_BYTES, Chunk, FileRefused, GetFile, Have, PutFile, SendFrom, StatFile
from broker.protocol.worker import Invalid
from broker.runtime import sockets
from broker.runtime.settings import Files, Network
from broker.runtime.transfer import Download, TransferFailed, Upload, get_bytes, put_bytes
from broker.store.files import FileProblem, FileStore, Partial
from broker.store.journal import SLOTS
from broker.transfers import Transfers

#: A bound on liveness, never a measure.
PATIENCE_MS = 30_000
#: A file that no one turn of the channel finishes.
SLOW: Final = bytes(AT_ONCE_BYTES + 1)
SETTINGS = Files(chunk_bytes=4_096, credit_bytes=32_768)


class Wire:
    """A broker's file channel, and dealers that dial it."""

    def __init__(self, root: Path, **limits: Any) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.store = FileStore(root, **({"reserve_bytes": 0} | limits))
        self.network = Network(files="tcp://127.0.0.1:*")
        self.channel = self.serve()
        self.dealers: list[zmq.Socket[bytes]] = []

    def serve(self) -> FileChannel:
        channel = FileChannel(self._router(), self.store, SETTINGS)
        self.network = Network(files=channel.endpoint)
        channel.start()
        return channel

    def _router(self) -> zmq.Socket[bytes]:
        """libzmq lets go of a port a moment after the socket is closed."""
        deadline = time.monotonic() + PATIENCE_MS / 1_000
        while True:
            try:
                return sockets.router(self.context, "files", self.network, None)
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def dial(self) -> zmq.Socket[bytes]:
        session = secrets.token_hex(16).encode()
        dealer = sockets.dealer(self.context, "files", Network(files=self.channel.endpoint), None, session)
        dealer.linger = 0
        self.dealers.append(dealer)
        assert dealer.poll(PATIENCE_MS, zmq.POLLOUT)
        return dealer

    def close(self) -> None:
        self.channel.stop()
        for dealer in self.dealers:
            dealer.close()
        self.context.term()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path / "files")
    yield made
    made.close()


def rid() -> str:
    return secrets.token_hex(16)


def say(dealer: zmq.Socket[bytes], message: Any) -> None:
    dealer.send_multipart(encode(message))


def hear(dealer: zmq.Socket[bytes]) -> Any:
    assert dealer.poll(PATIENCE_MS), "no answer"
    return decode(dealer.recv_multipart(), FILES_BROKER_SENDS)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("size", [0, 1, 4_096, 1_000_000])
def test_bytes_go_there_and_back(wire: Wire, size: int) -> None:
    data = os.urandom(size)
    dealer = wire.dial()
    sha256 = put_bytes(dealer, data, rid())
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert wire.store.size(sha256) == size
    assert put_bytes(wire.dial(), data, rid()) == sha256
    assert get_bytes(wire.dial(), sha256, rid(), max_bytes=size) == data
    say(dealer, StatFile(request_id="a" * 32, sha256=sha256))
    assert hear(dealer) == Have(request_id="a" * 32, sha256=sha256, size_bytes=size)


def test_a_greenlet_can_wait_for_a_transfer_while_others_run(wire: Wire) -> None:
    code = """
import gevent.monkey; gevent.monkey.patch_all()
import os, secrets, sys, gevent, zmq.green as zmq
from broker.runtime import sockets
from broker.runtime.settings import Network
from broker.runtime.transfer import get_bytes, put_bytes
context = zmq.Context()
def both(_):
    dealer = sockets.dealer(context, "files", Network(files=sys.argv[1]), None, secrets.token_hex(16).encode())
    data = os.urandom(200_000)
    sha256 = put_bytes(dealer, data, secrets.token_hex(16))
    assert get_bytes(dealer, sha256, secrets.token_hex(16), max_bytes=200_000) == data
    dealer.close()
    return sha256
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)
ticker = gevent.spawn(tick)
print(len({job.get() for job in [gevent.spawn(both, n) for n in range(5)]}), ticks > 5)
"""
    argv = [sys.executable, "-c", code, wire.channel.endpoint]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["5", "True"], "")


def test_a_missing_file_and_a_full_disk_are_told_at_once(tmp_path: Path, wire: Wire) -> None:
    with pytest.raises(TransferFailed, match="not_found") as caught:
        get_bytes(wire.dial(), "a" * 64, rid(), max_bytes=10)
    assert caught.value.code == "not_found"
    full = Wire(tmp_path / "full", reserve_bytes=1 << 60)
    with pytest.raises(TransferFailed, match="full"):
        put_bytes(full.dial(), b"x", rid())
    full.close()


def test_a_broker_that_never_answers_is_given_up_on(wire: Wire) -> None:
    dealer = wire.context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.immediate = True
    wire.dealers.append(dealer)
    dealer.connect("tcp://127.0.0.1:1")
    with pytest.raises(TransferFailed, match="silent"):
        put_bytes(dealer, b"x", rid(), silence_ms=5, give_up_ms=20)


def test_a_message_that_breaks_the_contract_is_answered_and_counted(wire: Wire) -> None:
    dealer = wire.dial()
    not_for_clients = encode(SendFrom(request_id="a" * 32, offset=0, until=1))
    for count, frames in enumerate(([b"junk"], [b""], [b"CF1", b"\xff", b"\x80"], not_for_clients), 1):
        dealer.send_multipart(frames)
        answer = hear(dealer)
        assert isinstance(answer, Invalid)
        assert answer.count == count
    assert wire.channel.invalid == 4
    assert put_bytes(dealer, b"still here", rid())


def test_an_upload_goes_on_after_the_broker_came_back(wire: Wire) -> None:
    data = os.urandom(100_000)
    sha256 = hashlib.sha256(data).hexdigest()
    dealer = wire.dial()
    upload = Upload(rid(), sha256, len(data), lambda offset, size: data[offset : offset + size], chunk_bytes=4_096)
    for message in upload.begin():
        say(dealer, message)
    while upload.offset < 40_000:
        for message in upload.feed(hear(dealer)):
            say(dealer, message)
    wire.channel.stop()
    assert not wire.store.has(sha256)
    wire.channel = wire.serve()
    again = wire.dial()
    for message in upload.begin():
        say(again, message)
    answer = hear(again)
    assert answer.offset >= 40_000
    while not upload.done:
        for message in upload.feed(answer):
            say(again, message)
        answer = hear(again) if not upload.done else None
    assert wire.store.read(sha256, 0, len(data)) == data


def test_wrong_bytes_are_refused(wire: Wire) -> None:
    dealer = wire.dial()
    upload = Upload("a" * 32, "b" * 64, 10, lambda offset, size: bytes(size))
    for message in upload.begin():
        say(dealer, message)
    while not upload.over:
        for message in upload.feed(hear(dealer)):
            say(dealer, message)
    assert upload.failure is not None
    assert upload.failure.code == "digest_mismatch"


def test_a_slow_disk_holds_up_only_the_file_that_is_being_finished(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    finish = Partial.finish
    slow = hashlib.sha256(SLOW).hexdigest()

    def sometimes_slow(partial: Partial) -> None:
        if partial.sha256 == slow:
            assert release.wait(PATIENCE_MS / 1_000)
        finish(partial)

    monkeypatch.setattr(Partial, "finish", sometimes_slow)
    waiting = wire.dial()
    say(waiting, PutFile(request_id="a" * 32, sha256=slow, size_bytes=len(SLOW), data=b""))
    for offset in range(0, len(SLOW), SETTINGS.credit_bytes):
        assert isinstance(hear(waiting), SendFrom)
        part = SLOW[offset : offset + SETTINGS.credit_bytes]
        say(waiting, Chunk(request_id="a" * 32, offset=offset, size_bytes=len(SLOW), data=part))
    say(waiting, PutFile(request_id="b" * 32, sha256=slow, size_bytes=len(SLOW), data=b""))
    assert hear(waiting) == SendFrom(request_id="b" * 32, offset=len(SLOW), until=len(SLOW))
    other = wire.dial()
    sha256 = put_bytes(other, os.urandom(300_000), rid())
    assert len(get_bytes(other, sha256, rid(), max_bytes=300_000)) == 300_000
    assert not wire.store.has(slow)
    release.set()
    assert hear(waiting) == Have(request_id="a" * 32, sha256=slow, size_bytes=len(SLOW))


def test_a_small_download_does_not_wait_for_a_large_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is asked for: how much of the large one has left by then is the machine's business."""
    handle, sent = Transfers.handle, Transfers.sent
    turns: list[str] = []

    def asked(self: Transfers, peer: bytes, message: Any, now_s: float) -> list[tuple[bytes, Any]]:
        turns.clear()
        return handle(self, peer, message, now_s)

    def noted(self: Transfers, key: tuple[bytes, str], message: Any, now_s: float) -> None:
        turns.append(key[1])
        sent(self, key, message, now_s)

    dealer = wire.dial()
    large = put_bytes(dealer, bytes(4_000_000), rid())
    small = put_bytes(dealer, b"small", rid())
    monkeypatch.setattr(Transfers, "handle", asked)
    monkeypatch.setattr(Transfers, "sent", noted)
    say(dealer, GetFile(request_id="a" * 32, sha256=large, offset=0, until=4_000_000))
    say(dealer, GetFile(request_id="b" * 32, sha256=small, offset=0, until=5))
    while hear(dealer).request_id != "b" * 32:
        continue
    until(lambda: "b" * 32 in turns)  # noted a moment after it was sent
    assert turns.index("b" * 32) <= 1


def test_a_peer_that_leaves_or_reads_nothing_holds_up_nobody(wire: Wire) -> None:
    large = put_bytes(wire.dial(), bytes(8_000_000), rid())
    stalled, leaving = wire.dial(), wire.dial()
    for dealer in (stalled, leaving):
        say(dealer, GetFile(request_id=rid(), sha256=large, offset=0, until=8_000_000))
        assert isinstance(hear(dealer), Chunk)
    leaving.close()
    assert len(get_bytes(wire.dial(), large, rid(), max_bytes=8_000_000)) == 8_000_000
    assert wire.channel.alive


def test_many_peers_at_once(wire: Wire) -> None:
    files = [os.urandom(150_000) for _ in range(8)]
    found: dict[int, bytes] = {}

    def both(n: int, dealer: zmq.Socket[bytes]) -> None:
        sha256 = put_bytes(dealer, files[n // 2], rid())
        found[n] = get_bytes(dealer, sha256, rid(), max_bytes=150_000)

    threads = [threading.Thread(target=both, args=(n, wire.dial())) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: files[n // 2] for n in range(16)}


def test_stopping_finishes_whole_files_and_frees_the_port(wire: Wire) -> None:
    sha256 = put_bytes(wire.dial(), b"x", rid())
    stopped = wire.channel
    stopped.stop()
    assert not stopped.alive
    wire.channel = wire.serve()
    assert get_bytes(wire.dial(), sha256, rid(), max_bytes=1) == b"x"


def test_an_error_that_nobody_expected_ends_the_thread_and_shows(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_store: FileStore, _sha256: str, _data: bytes) -> bool:
        raise RuntimeError("a bug")

    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    monkeypatch.setattr(FileStore, "keep", broken)
    dealer = wire.dial()
    say(dealer, PutFile(request_id="a" * 32, sha256="b" * 64, size_bytes=0, data=b""))
    until(lambda: not wire.channel.alive)
    assert [str(args.exc_value) for args in died] == ["a bug"]


def test_small_files_are_settled_a_little_later(wire: Wire) -> None:
    names = [put_bytes(wire.dial(), b"%d" % number, rid()) for number in range(3)]
    until(lambda: not wire.store.unsettled)
    assert all(wire.store.has(name) for name in names)


def test_more_small_files_than_the_journal_holds(wire: Wire) -> None:
    dealer = wire.dial()
    names = [put_bytes(dealer, b"%d" % number, rid()) for number in range(3 * SLOTS)]
    assert all(wire.store.has(name) for name in names)
    wire.channel.stop()
    assert not wire.store.unsettled
    wire.channel = wire.serve()


def test_a_disk_that_takes_no_more_files_is_told_of_and_waited_for(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise FileProblem("full", "no room")

    with monkeypatch.context() as patched:
        patched.setattr(wire.store, "settle", failing)
        sha256 = put_bytes(wire.dial(), b"x", rid())
        until(lambda: "the disk refuses files" in caplog.text)
    assert wire.store.has(sha256)
    until(lambda: not wire.store.unsettled)
    assert wire.store.has(sha256)


def test_a_refused_file_is_said_in_words(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_store: FileStore, _sha256: str, _data: bytes) -> bool:
        raise FileProblem("damaged", "the disk failed")

    monkeypatch.setattr(FileStore, "keep", failing)
    dealer = wire.dial()
    say(dealer, PutFile(request_id="a" * 32, sha256="b" * 64, size_bytes=0, data=b""))
    assert hear(dealer) == FileRefused(request_id="a" * 32, code="damaged", text="the disk failed")
    download = Download("c" * 32, "b" * 64, bytearray().extend, max_bytes=1)
    say(dealer, download.begin()[0])
    download.feed(hear(dealer))
    assert str(download.failure).startswith(f"not_found: {'b' * 64}:")
