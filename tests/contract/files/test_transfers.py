"""The broker's side with a real folder, and both sides together over a wire that loses, doubles and reorders."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from broker.protocol.errors import RemoteProtocolError
from broker.protocol.files import Chunk, FileRefused, GetFile, Have, PutFile, SendFrom, StatFile
from broker.runtime.transfer import Download, Transfer, Upload
from broker.store.files import FileProblem, FileStore
from broker.transfers import IDLE_S, MAX_PER_PEER, MAX_SENDERS, MAX_UPLOADS, Transfers

CHUNK, CREDIT = 4, 10
RIDS = [f"{n:032x}" for n in range(1_000)]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(rid: str, data: bytes, sent: bytes = b"") -> PutFile:
    return PutFile(request_id=rid, sha256=sha256_of(data), size_bytes=len(data), data=sent)


def chunk(rid: str, data: bytes, offset: int, size: int) -> Chunk:
    return Chunk(request_id=rid, offset=offset, size_bytes=len(data), data=data[offset : offset + size])


def get(rid: str, sha256: str, offset: int, until: int) -> GetFile:
    return GetFile(request_id=rid, sha256=sha256, offset=offset, until=until)


class Broker:
    """Transfers with the shell's part done at once: whole files are finished, chunks go out in turn."""

    def __init__(self, store: FileStore) -> None:
        self.store = store
        self.transfers = Transfers(store, chunk_bytes=CHUNK, credit_bytes=CREDIT)

    def say(self, peer: bytes, message: Any, now_s: float = 0.0) -> list[tuple[bytes, Any]]:
        replies = self.transfers.handle(peer, message, now_s)
        for partial in self.transfers.take_whole():
            try:
                partial.finish()
            except FileProblem as e:
                replies += self.transfers.finished(partial, e)
            else:
                replies += self.transfers.finished(partial, None)
        return replies

    def answer(self, peer: bytes, message: Any, now_s: float = 0.0) -> Any:
        """The only reply."""
        ((to, reply),) = self.say(peer, message, now_s)
        assert to == peer
        return reply

    def chunks(self) -> list[tuple[bytes, Any]]:
        """One chunk of every download, in turn."""
        sent = []
        for key in self.transfers.turns(1_000):
            message = self.transfers.chunk_for(key)
            self.transfers.sent(key, message, 0.0)
            sent.append((key[0], message))
        return sent


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    return FileStore(tmp_path_factory.mktemp("files"), reserve_bytes=0)


@pytest.fixture
def broker(store: FileStore) -> Iterator[Broker]:
    made = Broker(store)
    yield made
    made.transfers.close()


@pytest.fixture
def data() -> bytes:
    return random.randbytes(23)


def keep(store: FileStore, data: bytes) -> str:
    partial = store.begin(sha256_of(data), len(data))
    partial.write(data)
    partial.finish()
    return partial.sha256


# ---- in


def test_an_upload_gets_credit_for_each_chunk_and_have_at_the_end(broker: Broker, data: bytes) -> None:
    rid = RIDS[0]
    assert broker.answer(b"a", put(rid, data)) == SendFrom(request_id=rid, offset=0, until=CREDIT)
    assert broker.answer(b"a", chunk(rid, data, 0, 10)) == SendFrom(request_id=rid, offset=10, until=20)
    assert broker.answer(b"a", chunk(rid, data, 10, 10)) == SendFrom(request_id=rid, offset=20, until=23)
    have = Have(request_id=rid, sha256=sha256_of(data), size_bytes=23)
    assert broker.answer(b"a", chunk(rid, data, 20, 3)) == have
    assert broker.store.read(sha256_of(data), 0, 100) == data
    # The same again costs one question.
    assert isinstance(broker.answer(b"b", put(RIDS[1], data)), Have)
    assert isinstance(broker.answer(b"b", StatFile(request_id=RIDS[1], sha256=sha256_of(data))), Have)


def test_two_peers_that_send_the_same_file_share_the_work_and_both_hear_have(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data))
    broker.say(b"b", put(RIDS[1], data))
    broker.say(b"a", chunk(RIDS[0], data, 0, 8))
    # b's bytes are there already, in part: it is told where to go on.
    assert broker.answer(b"b", chunk(RIDS[1], data, 0, 4)) == SendFrom(request_id=RIDS[1], offset=8, until=18)
    assert broker.answer(b"b", chunk(RIDS[1], data, 4, 10)) == SendFrom(request_id=RIDS[1], offset=14, until=23)
    said = broker.say(b"b", chunk(RIDS[1], data, 14, 9))
    assert [(to, type(reply)) for to, reply in said] == [(b"a", Have), (b"b", Have)]
    assert broker.store.read(sha256_of(data), 0, 100) == data


def test_a_small_file_comes_with_the_question_and_has_one_answer(broker: Broker) -> None:
    small = random.randbytes(CHUNK)
    have = Have(request_id=RIDS[0], sha256=sha256_of(small), size_bytes=CHUNK)
    assert broker.answer(b"a", put(RIDS[0], small, small)) == have
    assert broker.store.read(sha256_of(small), 0, 100) == small
    assert isinstance(broker.answer(b"b", put(RIDS[1], small, small)), Have)


def test_a_small_file_of_which_a_part_is_there_is_told_where_it_stands(broker: Broker) -> None:
    small = random.randbytes(CHUNK)
    broker.say(b"a", put(RIDS[0], small))
    broker.say(b"a", chunk(RIDS[0], small, 0, 1))
    said = broker.say(b"b", put(RIDS[1], small, small))
    assert said[0] == (b"b", SendFrom(request_id=RIDS[1], offset=1, until=CHUNK))
    assert [(to, type(reply)) for to, reply in said[1:]] == [(b"a", Have), (b"b", Have)]
    assert broker.store.read(sha256_of(small), 0, 100) == small


def test_a_part_of_a_file_with_the_question_is_refused(broker: Broker) -> None:
    small = random.randbytes(CHUNK)
    with pytest.raises(RemoteProtocolError, match="neither nothing nor the whole file"):
        broker.say(b"a", put(RIDS[0], small, small[:-1]))
    assert isinstance(broker.answer(b"a", put(RIDS[0], small, small)), Have)


def test_a_file_is_not_told_of_before_it_is_finished(store: FileStore, data: bytes) -> None:
    transfers = Transfers(store, chunk_bytes=CHUNK, credit_bytes=100)
    transfers.handle(b"a", put(RIDS[0], data), 0.0)
    assert transfers.handle(b"a", chunk(RIDS[0], data, 0, 23), 0.0) == []
    (partial,) = transfers.take_whole()
    assert transfers.take_whole() == []
    partial.finish()
    # Its name is there, but nobody has said yet that the name is on disk.
    ((_, reply),) = transfers.handle(b"b", StatFile(request_id=RIDS[1], sha256=partial.sha256), 0.0)
    assert reply.code == "not_found"
    ((_, reply),) = transfers.handle(b"b", put(RIDS[1], data), 0.0)
    assert isinstance(reply, SendFrom)
    assert [type(reply) for _, reply in transfers.finished(partial, None)] == [Have, Have]


def test_wrong_bytes_are_refused_to_everyone_and_thrown_away(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data))
    broker.say(b"b", put(RIDS[1], data))
    wrong = bytes(23)
    for offset in (0, 10):
        broker.say(b"a", chunk(RIDS[0], wrong, offset, 10))
    *_, (_, first), (_, second) = broker.say(b"a", chunk(RIDS[0], wrong, 20, 3))
    assert (first.code, second.code) == ("digest_mismatch", "digest_mismatch")
    assert not broker.store.has(sha256_of(data))
    assert broker.answer(b"b", put(RIDS[2], data)).offset == 0


def test_a_gap_or_an_unknown_transfer_is_told_to_begin_again(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data))
    assert broker.answer(b"a", chunk(RIDS[0], data, 4, 4)).code == "restart"
    assert broker.answer(b"a", chunk(RIDS[0], data, 0, 4)).code == "restart"
    assert broker.answer(b"a", chunk(RIDS[9], data, 0, 4)).code == "restart"
    assert broker.answer(b"b", chunk(RIDS[0], data, 0, 4)).code == "restart"


@pytest.mark.parametrize(("offset", "size", "whole"), [(0, 11, 23), (10, 1, 23), (0, 4, 22), (0, 4, 24)])
def test_a_chunk_past_its_credit_or_of_another_size_breaks_the_contract(
    broker: Broker, data: bytes, offset: int, size: int, whole: int
) -> None:
    broker.say(b"a", put(RIDS[0], data))
    bad = Chunk(request_id=RIDS[0], offset=offset, size_bytes=whole, data=bytes(size))
    with pytest.raises(RemoteProtocolError, match="past its credit"):
        broker.say(b"a", bad)
    assert broker.answer(b"a", put(RIDS[1], data)).offset == 0


def test_one_request_id_is_for_one_file(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data))
    with pytest.raises(RemoteProtocolError, match="in use for another file"):
        broker.say(b"a", put(RIDS[0], data + b"x"))


def test_a_message_no_client_sends_is_forbidden(broker: Broker) -> None:
    with pytest.raises(RemoteProtocolError, match="FORBIDDEN"):
        broker.say(b"a", SendFrom(request_id=RIDS[0], offset=0, until=1))


def test_a_file_of_two_sizes_at_once_waits(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data))
    liar = PutFile(request_id=RIDS[1], sha256=sha256_of(data), size_bytes=99, data=b"")
    assert broker.answer(b"b", liar).code == "busy"


def test_one_peer_cannot_take_all_the_room_and_may_always_begin_again(broker: Broker, store: FileStore) -> None:
    many = [random.randbytes(23) for _ in range(MAX_PER_PEER + 1)]
    replies = [broker.answer(b"a", put(rid, one)) for rid, one in zip(RIDS, many, strict=False)]
    assert [type(reply) for reply in replies] == [SendFrom] * MAX_PER_PEER + [FileRefused]
    assert replies[-1].code == "busy"
    assert isinstance(broker.answer(b"a", put(RIDS[100], many[0])), SendFrom)
    assert isinstance(broker.answer(b"b", put(RIDS[0], many[-1])), SendFrom)
    stored = keep(store, random.randbytes(30))
    assert broker.answer(b"a", get(RIDS[101], stored, 0, 30)).code == "busy"
    broker.transfers.drop_peer(b"a")
    assert broker.say(b"a", get(RIDS[101], stored, 0, 30)) == []


def test_downloads_of_one_file_count_each(broker: Broker, store: FileStore) -> None:
    stored = keep(store, random.randbytes(30))
    said = [broker.say(b"a", get(rid, stored, 0, 30)) for rid in RIDS[: MAX_PER_PEER + 1]]
    assert said[:-1] == [[]] * MAX_PER_PEER
    assert said[-1][0][1].code == "busy"


def test_all_peers_together_are_bounded(broker: Broker) -> None:
    peers = [b"%d" % n for n in range(MAX_UPLOADS + 1)]
    replies = [broker.answer(peer, put(RIDS[0], random.randbytes(23))) for peer in peers]
    assert [type(reply) for reply in replies] == [SendFrom] * MAX_UPLOADS + [FileRefused]


def test_beginning_again_and_again_forgets_the_oldest_only(broker: Broker, data: bytes) -> None:
    for n in range(MAX_SENDERS + 1):
        broker.say(b"a", put(RIDS[n], data), now_s=float(n))
    assert broker.answer(b"a", chunk(RIDS[0], data, 0, 4)).code == "restart"
    assert isinstance(broker.answer(b"a", chunk(RIDS[MAX_SENDERS], data, 0, 4)), SendFrom)


def test_a_transfer_that_rests_is_forgotten_and_goes_on_where_it_stood(broker: Broker, data: bytes) -> None:
    broker.say(b"a", put(RIDS[0], data), now_s=0.0)
    broker.say(b"a", chunk(RIDS[0], data, 0, 10), now_s=10.0)
    broker.transfers.expire(10.0 + IDLE_S)
    assert broker.answer(b"a", chunk(RIDS[0], data, 10, 3), now_s=11.0).offset == 13
    broker.transfers.expire(12.0 + IDLE_S)
    assert broker.answer(b"a", chunk(RIDS[0], data, 13, 3)).code == "restart"
    assert broker.answer(b"another", put(RIDS[1], data)).offset == 13


# ---- out


def test_a_download_comes_in_chunks_within_what_was_asked(broker: Broker, store: FileStore, data: bytes) -> None:
    sha256 = keep(store, data)
    assert broker.say(b"a", get(RIDS[0], sha256, 0, 6)) == []
    assert [message for _, message in broker.chunks()] == [chunk(RIDS[0], data, 0, 4)]
    # More credit goes on where the earlier ends, and is one line of chunks, not two.
    broker.say(b"a", get(RIDS[0], sha256, 6, 9))
    assert [message for _, message in broker.chunks()] == [chunk(RIDS[0], data, 4, 4)]
    assert [message for _, message in broker.chunks()] == [chunk(RIDS[0], data, 8, 1)]
    assert broker.chunks() == []
    broker.say(b"a", get(RIDS[0], sha256, 21, 1_000))
    assert [message for _, message in broker.chunks()] == [chunk(RIDS[0], data, 21, 2)]
    assert broker.chunks() == []


@pytest.mark.parametrize(("content", "offset"), [(b"", 0), (b"abc", 3), (b"abc", 99)])
def test_a_download_of_nothing_is_one_empty_chunk(
    broker: Broker, store: FileStore, content: bytes, offset: int
) -> None:
    broker.say(b"a", get(RIDS[0], keep(store, content), offset, offset + 10))
    ((_, reply),) = broker.chunks()
    assert (reply.data, reply.size_bytes) == (b"", len(content))
    assert broker.chunks() == []


def test_downloads_take_turns(broker: Broker, store: FileStore) -> None:
    long, short = keep(store, random.randbytes(400)), keep(store, random.randbytes(7))
    broker.say(b"a", get(RIDS[0], long, 0, 400))
    broker.say(b"b", get(RIDS[0], short, 0, 7))
    assert [peer for peer, _ in broker.chunks() + broker.chunks() + broker.chunks()] == [b"a", b"b", b"a", b"b", b"a"]


def test_a_peer_whose_queue_is_full_holds_up_nobody(broker: Broker, store: FileStore) -> None:
    stored = keep(store, random.randbytes(40))
    for peer in (b"full", b"free"):
        broker.say(peer, get(RIDS[0], stored, 0, 40))
    first, second = broker.transfers.turns(2)
    broker.transfers.passed(first)
    assert broker.transfers.turns(2) == [second, first]
    broker.transfers.passed((b"gone", RIDS[0]))
    assert len(broker.transfers.turns(10)) == 2


def test_a_missing_or_shortened_file_is_told(broker: Broker, store: FileStore, tmp_path: Path, data: bytes) -> None:
    assert broker.answer(b"a", get(RIDS[0], "f" * 64, 0, 10)).code == "not_found"
    assert broker.answer(b"a", StatFile(request_id=RIDS[0], sha256="f" * 64)).code == "not_found"
    own = FileStore(tmp_path / "own")
    sha256 = keep(own, data)
    damaged = Broker(own)
    damaged.say(b"a", get(RIDS[0], sha256, 0, 23))
    (tmp_path / "own" / sha256[:2] / sha256).write_bytes(b"")
    assert [reply.code for _, reply in damaged.chunks()] == ["damaged"]
    assert damaged.chunks() == []


# ---- both sides together

_content = itertools.count()


class World:
    """Clients and a broker, and every message between them in one bag, from which chance draws."""

    def __init__(self, store: FileStore, sizes: list[int], chance: random.Random) -> None:
        self.chance = chance
        self.store = store
        self.broker = Broker(store)
        self.rids = (f"{chance.getrandbits(128):032x}" for _ in itertools.count())
        self.files = [b"%d" % next(_content) + chance.randbytes(size) for size in sizes]
        self.found: dict[bytes, bytearray] = {}
        self.clients: dict[bytes, Transfer] = {}
        #: (to the broker?, peer, message)
        self.wire: list[tuple[bool, bytes, Any]] = []
        for data in self.files:
            for _ in range(2):  # each file is sent by two
                self.join(self.upload(data))
        for data in self.files:
            keep(store, data + b"!")
            self.join(self.download(data + b"!"))

    def upload(self, data: bytes) -> Transfer:
        def read(offset: int, size: int) -> bytes:
            return data[offset : offset + size]

        return Upload(next(self.rids), sha256_of(data), len(data), read, chunk_bytes=CHUNK, at_once_bytes=CHUNK)

    def download(self, data: bytes) -> Transfer:
        found = self.found.setdefault(data, bytearray())
        return Download(next(self.rids), sha256_of(data), found.extend, max_bytes=10_000, credit_bytes=CREDIT)

    def join(self, client: Transfer) -> None:
        peer = b"peer %d" % len(self.clients)
        self.clients[peer] = client
        self.post(peer, client.begin())

    def post(self, peer: bytes, messages: list[Any]) -> None:
        self.wire += [(True, peer, message) for message in messages]

    def deliver(self, index: int) -> None:
        to_broker, peer, message = self.wire.pop(index)
        if to_broker:
            self.wire += [(False, to, reply) for to, reply in self.broker.say(peer, message)]
        else:
            self.post(peer, self.clients[peer].feed(message))

    def storm(self, steps: int) -> None:
        for _ in range(steps):
            self.wire += [(False, to, message) for to, message in self.broker.chunks()]
            at = self.chance.randrange(len(self.wire)) if self.wire else None
            match self.chance.choice(["deliver"] * 12 + ["lose", "double", "silence", "restart"]):
                case "deliver" if at is not None:
                    self.deliver(at if self.chance.random() < 0.3 else 0)
                case "lose" if at is not None:
                    self.wire.pop(at)
                case "double" if at is not None:
                    self.wire.append(self.wire[at])
                case "silence":
                    peer = self.chance.choice(list(self.clients))
                    if not self.clients[peer].over:
                        self.post(peer, self.clients[peer].begin())
                case "restart":
                    self.broker.transfers.close()
                    self.broker = Broker(self.store)

    def settle(self) -> None:
        """The wire is good again: everything arrives, in order, and who hears nothing begins again."""
        for _ in range(100):
            while self.wire:
                self.deliver(0)
                self.wire += [(False, to, message) for to, message in self.broker.chunks()]
            for peer, client in self.clients.items():
                if not client.over:
                    self.post(peer, client.begin())
            if not self.wire:
                return
        raise AssertionError("the transfers do not end")


@given(st.lists(st.integers(0, 60), min_size=1, max_size=3), st.integers(0, 2**32), st.integers(0, 150))
@settings(max_examples=150)
def test_every_transfer_ends_whole_after_any_storm(store: FileStore, sizes: list[int], seed: int, steps: int) -> None:
    world = World(store, sizes, random.Random(seed))
    world.storm(steps)
    world.settle()
    assert [client.failure for client in world.clients.values()] == [None] * len(world.clients)
    assert all(client.done for client in world.clients.values())
    for data in world.files:
        assert world.store.read(sha256_of(data), 0, 1_000) == data
    assert {data: bytes(found) for data, found in world.found.items()} == {data: data for data in world.found}
