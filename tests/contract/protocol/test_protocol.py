"""The contract: every message survives the wire, its bytes never change unnoticed, and no bytes break a decoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol import client, codec, worker
from broker.protocol.codec import MAGIC, TYPES, WORKER_SENDS, decode, encode
from broker.protocol.errors import LocalProtocolError, RemoteProtocolError
from broker.protocol.records import Stats
from tests.contract.protocol.samples import sample, strategy

GOLDEN = Path(__file__).with_name("golden.json")
ALL = frozenset(TYPES)
KINDS = [pytest.param(tag, kind, id=kind.__name__) for tag, kind in TYPES.items()]
ROLES = {
    "worker": codec.WORKER_SENDS,
    "broker to worker": codec.BROKER_TO_WORKER,
    "client": codec.CLIENT_SENDS,
    "admin": codec.ADMIN_SENDS,
    "broker to client": codec.BROKER_TO_CLIENT,
    "events": codec.EVENTS,
    "files client": codec.FILES_CLIENT_SENDS,
    "files broker": codec.FILES_BROKER_SENDS,
}


@pytest.mark.parametrize(("tag", "kind"), KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_a_message_survives_the_wire(tag: int, kind: Any, data: st.DataObject) -> None:
    message = data.draw(strategy(kind))
    frames = encode(message)
    assert frames[:2] == [MAGIC, bytes([tag])]
    assert len(frames) < codec.MAX_FRAMES
    assert decode(frames, ALL) == message


@pytest.mark.parametrize(("tag", "kind"), KINDS)
def test_the_bytes_of_a_message_are_golden(tag: int, kind: Any) -> None:
    """A difference means that old workers and new brokers no longer understand one another: use a new magic."""
    golden = json.loads(GOLDEN.read_text())
    assert [frame.hex() for frame in encode(sample(kind))] == golden[kind.__name__]


def test_no_golden_message_is_left_over() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == {kind.__name__ for kind in TYPES.values()}


def test_every_type_belongs_to_some_role() -> None:
    assert frozenset().union(*ROLES.values()) == ALL


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_held_to_its_own_messages(role: str) -> None:
    for tag, kind in TYPES.items():
        frames = encode(sample(kind))
        if tag in ROLES[role]:
            assert isinstance(decode(frames, ROLES[role]), kind)
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                decode(frames, ROLES[role])
            assert refused.value.code == "FORBIDDEN"


@given(st.lists(st.binary(max_size=60), max_size=9))
@settings(max_examples=400)
def test_any_frames_give_a_message_or_a_protocol_error(frames: list[bytes]) -> None:
    _decodes_or_refuses(frames)


@given(st.sampled_from(sorted(TYPES)), st.binary(max_size=200), st.lists(st.binary(max_size=9), max_size=3))
@settings(max_examples=400)
def test_any_header_gives_a_message_or_a_protocol_error(tag: int, header: bytes, blobs: list[bytes]) -> None:
    _decodes_or_refuses([MAGIC, bytes([tag]), header, *blobs])


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@pytest.mark.parametrize(("tag", "kind"), KINDS)
@given(data=st.data())
@settings(max_examples=15)
def test_one_wrong_value_gives_a_protocol_error_that_names_the_key(tag: int, kind: Any, data: st.DataObject) -> None:
    frames = encode(sample(kind))
    header = msgpack.unpackb(frames[2])
    if not header:
        return
    key = data.draw(st.sampled_from(sorted(header)))
    header[key] = data.draw(plain)
    frames[2] = msgpack.packb(header)
    try:
        decode(frames, ALL)
    except RemoteProtocolError as e:
        assert key in e.detail or "repeats" in e.detail or "msgpack" in e.detail


def test_a_deadline_is_at_most_a_year_away() -> None:
    year_ms = 366 * 86_400_000
    submit = dataclasses.replace(sample(client.Submit), deadline_ms=year_ms)
    frames = encode(submit)
    assert decode(frames, ALL) == submit
    frames[2] = msgpack.packb(msgpack.unpackb(frames[2]) | {"deadline_ms": year_ms + 1})
    with pytest.raises(RemoteProtocolError, match="deadline_ms"):
        decode(frames, ALL)


def _decodes_or_refuses(frames: list[bytes]) -> None:
    try:
        message = decode(frames, ALL)
    except RemoteProtocolError as e:
        assert e.code in {"VERSION", "UNKNOWN", "FORBIDDEN", "INVALID"}
        assert len(e.detail) <= 500
    else:
        assert type(message) in TYPES.values()


def header_of(**changes: Any) -> bytes:
    base = {"serial": 1, "credits": 1, "seen": 0}
    return bytes(msgpack.packb(base | changes))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"", "msgpack"),
        (b"\xc1", "msgpack"),
        (b"\xdd\xff\xff\xff\xff", "msgpack"),  # an array of 2^32-1, claimed
        (b"\xdf\xff\xff\xff\xff", "msgpack"),
        (b"\xc6\xff\xff\xff\xff", "msgpack"),  # 4 GiB of bytes, claimed
        (b"\x91" * 500 + b"\x00", "map"),
        (b"\x91" * 100_000, "msgpack"),
        (b"\x82\xa1a\x01\xa1a\x02", "repeats"),
        (b"\x81\x01\x02", "msgpack"),  # a key that is no text
        (b"\xc7\x00\x05", "extension"),
        (b"\xd6\xff\x00\x00\x00\x00", "msgpack"),  # a timestamp
        (b"\x80\x80", "msgpack"),  # two objects
        (b"\x81\xa1\xff\x01", "msgpack"),  # bad UTF-8
        (b"\x81\xa3\xed\xa0\x80\x01", "msgpack"),  # a surrogate
        (b"\x80(lp0\n.", "msgpack"),
        (b'{"serial": 1}', "msgpack"),
        (header_of(credits=True), "credits"),
        (header_of(credits=-1), "credits"),
        (header_of(credits=1.0), "credits"),
        (header_of(credits=2**63), "credits"),
        (header_of(credits=None), "credits"),
        (header_of(other=1), "other"),
        (b"\x80", "serial"),
        (b"\x80" * (2 << 20), "bytes"),
    ],
)
def test_a_bad_header_is_named(header: bytes, names: str) -> None:
    with pytest.raises(RemoteProtocolError, match=names):
        decode([MAGIC, b"\x03", header], WORKER_SENDS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_share_that_is_none_is_refused(value: float) -> None:
    beat = worker.Heartbeat(stats=sample(Stats), held=())
    header = msgpack.unpackb(encode(beat)[2])
    header["stats"]["cpu_busy"] = value
    with pytest.raises(RemoteProtocolError, match=r"stats\.cpu_busy"):
        decode([MAGIC, b"\x04", msgpack.packb(header)], WORKER_SENDS)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b"CF2", b"\x03", header_of()], "VERSION"),
        ([b"HTTP", b"\x03", header_of()], "INVALID"),
        ([MAGIC, b"\xfe", header_of()], "UNKNOWN"),
        ([MAGIC, b"", header_of()], "UNKNOWN"),
        ([MAGIC, b"\x03\x03", header_of()], "UNKNOWN"),
        ([MAGIC, b"\x03"], "INVALID"),
        ([MAGIC, b"\x03", header_of(), b"blob"], "INVALID"),
        ([MAGIC] * 8, "INVALID"),
        ([MAGIC, b"\x40", header_of()], "FORBIDDEN"),
    ],
)
def test_a_bad_envelope_has_its_code(frames: list[bytes], code: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        decode(frames, WORKER_SENDS)
    assert refused.value.code == code


def test_a_blob_over_its_cap_is_refused() -> None:
    message = sample(worker.ProgressReport)
    frames = encode(dataclasses.replace(message, image=b"x" * ((1 << 20) + 1)))
    with pytest.raises(RemoteProtocolError, match=r"ProgressReport\.image"):
        decode(frames, WORKER_SENDS)


def test_only_messages_are_encoded() -> None:
    with pytest.raises(LocalProtocolError, match="dict is not a message"):
        encode({})
