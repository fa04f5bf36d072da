"""The frame reader: every rule broken gets its close code at the header, any bytes give messages or a Violation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.stage import masked
from web.frames import MAX_FRAMES_PER_S, MAX_MESSAGE_BYTES, Close, Message, Opcode, Reader, Violation, encode

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def read(*pieces: bytes) -> list[Message]:
    reader, found = Reader(), []
    for at, piece in enumerate(pieces):
        found += reader.feed(piece, now_ms=at * 1_000)
    return found


def unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, len(payload)]) + payload


BROKEN: dict[str, tuple[bytes, Close]] = {
    "not masked": (unmasked(TEXT, b"hello"), Close.PROTOCOL),
    "reserved bit 1": (masked(TEXT, b"x", first=0xC1), Close.PROTOCOL),
    "reserved bit 3": (masked(TEXT, b"x", first=0x91), Close.PROTOCOL),
    "opcode 3": (masked(3, b"x"), Close.PROTOCOL),
    "opcode 15": (masked(15, b"x"), Close.PROTOCOL),
    "continuation first": (masked(CONT, b"x"), Close.PROTOCOL),
    "text inside a message": (masked(TEXT, b"x", final=False) + masked(TEXT, b"y"), Close.PROTOCOL),
    "fragmented ping": (masked(PING, b"x", final=False), Close.PROTOCOL),
    "ping of 126 bytes": (masked(PING, b"x" * 126), Close.PROTOCOL),
    "long form of a short length": (b"\x81\xfe\x00\x05" + bytes(9), Close.PROTOCOL),
    "longest form of a medium length": (b"\x81\xff" + (200).to_bytes(8, "big"), Close.PROTOCOL),
    "binary": (masked(BINARY, b"x"), Close.UNSUPPORTED),
    "text that is not UTF-8": (masked(TEXT, b"\xff\xfe"), Close.NOT_UTF8),
    "half a code point at the end": (masked(TEXT, b"\xe2\x82"), Close.NOT_UTF8),
    "a surrogate": (masked(TEXT, b"\xed\xa0\x80"), Close.NOT_UTF8),
    "2^16 + 1 bytes": (b"\x81\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), Close.TOO_BIG),
    "2^28 bytes claimed": (b"\x81\xff" + (1 << 28).to_bytes(8, "big"), Close.TOO_BIG),
    "2^34 bytes claimed": (b"\x82\xff" + (1 << 34).to_bytes(8, "big"), Close.TOO_BIG),
    "2^63 bytes claimed": (b"\x81\xff" + (1 << 63).to_bytes(8, "big"), Close.TOO_BIG),
    "close with one byte": (masked(CLOSE, b"\x03"), Close.PROTOCOL),
    "close 999": (masked(CLOSE, (999).to_bytes(2, "big")), Close.PROTOCOL),
    "close 1005": (masked(CLOSE, (1005).to_bytes(2, "big")), Close.PROTOCOL),
    "close 1006": (masked(CLOSE, (1006).to_bytes(2, "big")), Close.PROTOCOL),
    "close 2999": (masked(CLOSE, (2999).to_bytes(2, "big")), Close.PROTOCOL),
    "close 5000": (masked(CLOSE, (5000).to_bytes(2, "big")), Close.PROTOCOL),
    "close with a bad reason": (masked(CLOSE, b"\x03\xe8\xff"), Close.PROTOCOL),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_has_its_code(name: str) -> None:
    data, code = BROKEN[name]
    with pytest.raises(Violation) as caught:
        read(data)
    assert caught.value.code is code
    assert caught.value.text


def test_fragments_without_end_are_refused_at_the_limit() -> None:
    reader, piece = Reader(), b"x" * 16_000
    assert reader.feed(masked(TEXT, piece, final=False), 0) == []
    with pytest.raises(Violation) as caught:
        for at in range(1, 10):
            reader.feed(masked(CONT, piece, final=False), at * 1_000)
    assert caught.value.code is Close.TOO_BIG


def test_a_flood_of_frames_is_refused_and_a_steady_rate_is_not() -> None:
    steady = Reader()
    for second in range(60):
        for _ in range(MAX_FRAMES_PER_S):
            assert steady.feed(masked(PING, b""), second * 1_000) == [Message(Opcode.PING, b"")]
    with pytest.raises(Violation) as caught:
        Reader().feed(masked(PING, b"") * (2 * MAX_FRAMES_PER_S + 1), 0)
    assert caught.value.code is Close.POLICY


def test_a_split_code_point_is_whole_in_the_end() -> None:
    euro = "€".encode()
    assert read(masked(TEXT, euro[:1], final=False), masked(CONT, euro[1:])) == [Message(Opcode.TEXT, euro)]


def test_a_control_frame_may_come_between_fragments() -> None:
    data = masked(TEXT, b"a", final=False) + masked(PING, b"?") + masked(CONT, b"b")
    assert read(data) == [Message(Opcode.PING, b"?"), Message(Opcode.TEXT, b"ab")]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1014, 3000, 4401, 4999])
def test_a_proper_close_is_passed_on(code: int) -> None:
    payload = code.to_bytes(2, "big") + "bye é".encode()
    assert read(masked(CLOSE, payload)) == [Message(Opcode.CLOSE, payload)]


def test_an_empty_close_is_proper() -> None:
    assert read(masked(CLOSE, b"")) == [Message(Opcode.CLOSE, b"")]


@given(
    st.lists(st.text(max_size=40).map(str.encode), max_size=8),
    st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=20),
)
def test_how_the_bytes_are_cut_makes_no_difference(texts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(masked(TEXT, text) for text in texts)
    pieces, at, turn = [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        pieces.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert read(*pieces) == [Message(Opcode.TEXT, text) for text in texts]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_give_messages_or_a_violation(pieces: list[bytes]) -> None:
    reader = Reader()
    try:
        for at, piece in enumerate(pieces):
            for message in reader.feed(piece, at * 10_000):
                assert message.opcode is not Opcode.BINARY
    except Violation as e:
        assert e.code in Close and len(e.text) < 100


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_what_is_written_says_its_length_in_the_shortest_form(size: int) -> None:
    frame = encode(Opcode.TEXT, b"x" * size)
    ahead = 2 if size < 126 else 4 if size < 65_536 else 10
    assert frame[0] == 0x81 and len(frame) == ahead + size
    if ahead > 2:
        assert int.from_bytes(frame[2:ahead], "big") == size
