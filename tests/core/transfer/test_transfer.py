"""One side of a transfer, told what the broker says. The other side and a bad wire: tests/contract/files."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.files import CHUNK_BYTES, CREDIT_BYTES, Chunk, FileRefused, GetFile, Have, PutFile, SendFrom
from broker.runtime.transfer import Download, Transfer, Upload

RID = "0" * 31 + "f"
NEXT = "0" * 30 + "10"
DATA = b"a picture of a lighthouse"
SHA256 = hashlib.sha256(DATA).hexdigest()


def upload(data: bytes = DATA, chunk_bytes: int = 4, rid: str = RID) -> Upload:
    """Of at most 4 bytes it counts as small."""
    sha256 = hashlib.sha256(data).hexdigest()
    read = memoryview(data)
    return Upload(
        rid, sha256, len(data), lambda offset, size: bytes(read[offset : offset + size]), chunk_bytes=chunk_bytes,
        at_once_bytes=4,
    )  # fmt: skip


def download(found: bytearray, credit_bytes: int = 10, max_bytes: int = 100) -> Download:
    return Download(RID, SHA256, found.extend, max_bytes=max_bytes, credit_bytes=credit_bytes)


def send_from(offset: int, until: int, rid: str = RID) -> SendFrom:
    return SendFrom(request_id=rid, offset=offset, until=until)


def chunk(offset: int, size: int, rid: str = RID, data: bytes = DATA) -> Chunk:
    return Chunk(request_id=rid, offset=offset, size_bytes=len(data), data=data[offset : offset + size])


def refused(code: str, rid: str = RID) -> FileRefused:
    return FileRefused(request_id=rid, code=code, text="why")


def failure(transfer: Transfer) -> str:
    assert transfer.failure is not None
    assert transfer.over
    assert not transfer.done
    return transfer.failure.code


def test_an_upload_sends_up_to_its_credit_and_is_done_when_the_broker_has_it() -> None:
    one = upload()
    assert one.begin() == [PutFile(request_id=RID, sha256=SHA256, size_bytes=25, data=b"")]
    assert one.feed(send_from(0, 10)) == [chunk(0, 4), chunk(4, 4), chunk(8, 2)]
    assert one.feed(send_from(4, 14)) == [chunk(10, 4)]
    assert one.feed(send_from(8, 14)) == []
    assert one.feed(send_from(10, 99)) == [chunk(14, 4), chunk(18, 4), chunk(22, 3)]
    assert (one.over, one.offset) == (False, 10)
    assert one.feed(Have(request_id=RID, sha256=SHA256, size_bytes=25)) == []
    assert (one.done, one.over, one.failure, one.offset) == (True, True, None, 25)
    assert one.feed(send_from(0, 10)) == []


def test_an_upload_goes_on_from_what_the_broker_has_already() -> None:
    one = upload()
    one.begin()
    assert one.feed(send_from(20, 25)) == [chunk(20, 4), chunk(24, 1)]


def test_an_upload_skips_what_somebody_else_sent_meanwhile() -> None:
    one = upload()
    one.begin()
    one.feed(send_from(0, 8))
    assert one.feed(send_from(16, 20)) == [chunk(16, 4)]


def test_a_new_beginning_has_the_next_id_and_answers_to_the_old_one_are_ignored() -> None:
    one = upload()
    one.begin()
    one.feed(send_from(0, 10))
    assert one.begin() == [PutFile(request_id=NEXT, sha256=SHA256, size_bytes=25, data=b"")]
    assert one.request_id == NEXT
    for late in (send_from(10, 20), refused("busy"), refused("restart")):
        assert one.feed(late) == []
    assert one.feed(send_from(4, 8, NEXT)) == [chunk(4, 4, NEXT)]


def test_the_last_id_is_followed_by_the_first() -> None:
    one = upload(rid="f" * 32)
    one.begin()
    one.begin()
    assert one.request_id == "0" * 32


@pytest.mark.parametrize("make", [upload, lambda: download(bytearray())], ids=["upload", "download"])
def test_restart_begins_again_at_once_and_other_refusals_end_it(make: Any) -> None:
    one = make()
    one.begin()
    (opening,) = one.feed(refused("restart"))
    assert opening.request_id == NEXT
    for code in ("not_found", "too_large", "full", "busy", "damaged"):
        other = make()
        other.begin()
        assert other.feed(refused(code)) == []
        assert failure(other) == code
        assert SHA256 in str(other.failure)


def test_bytes_that_were_there_before_may_be_bad_once_our_own_may_not() -> None:
    one = upload()
    one.begin()
    one.feed(send_from(8, 25))
    (opening,) = one.feed(refused("digest_mismatch"))
    assert opening.request_id == NEXT
    one.feed(send_from(0, 25, NEXT))
    assert one.feed(refused("digest_mismatch", NEXT)) == []
    assert failure(one) == "digest_mismatch"


def test_a_small_file_is_sent_without_waiting() -> None:
    small = b"tiny"
    one = upload(small)
    assert one.begin() == [PutFile(request_id=RID, sha256=one.sha256, size_bytes=4, data=small)]
    one.feed(Have(request_id=RID, sha256=one.sha256, size_bytes=4))
    assert (one.done, one.offset) == (True, 4)


def test_a_small_file_of_which_a_part_was_there_is_sent_again_when_that_part_was_bad() -> None:
    one = upload(b"tiny")
    one.begin()
    assert one.feed(send_from(2, 4)) == []
    again = one.feed(refused("digest_mismatch"))
    assert [message.data for message in again] == [b"tiny"]
    # Now all of it is ours.
    assert one.feed(refused("digest_mismatch", NEXT)) == []
    assert failure(one) == "digest_mismatch"


@pytest.mark.parametrize("at_once_bytes", [0, 25])
def test_a_file_that_shrank_ends_its_upload(at_once_bytes: int) -> None:
    read = memoryview(DATA[:10])
    one = Upload(RID, SHA256, 25, lambda offset, size: bytes(read[offset : offset + size]), at_once_bytes=at_once_bytes)
    one.begin()
    assert one.feed(send_from(0, 25)) == []
    assert failure(one) == "damaged" and not one.launched
    assert "10 of 25 bytes" in str(one.failure)


def test_a_download_asks_ahead_by_its_credit_and_is_done_when_the_digest_is_right() -> None:
    found = bytearray()
    one = download(found)
    assert one.begin() == [GetFile(request_id=RID, sha256=SHA256, offset=0, until=10)]
    assert one.feed(chunk(0, 8)) == [GetFile(request_id=RID, sha256=SHA256, offset=10, until=18)]
    assert one.feed(chunk(8, 2)) == [GetFile(request_id=RID, sha256=SHA256, offset=18, until=20)]
    assert one.feed(chunk(10, 8)) == [GetFile(request_id=RID, sha256=SHA256, offset=20, until=25)]
    assert one.feed(chunk(18, 2)) == []
    assert not one.over
    assert one.feed(chunk(20, 5)) == []
    assert (one.done, one.size_bytes, bytes(found)) == (True, 25, DATA)


def test_a_download_takes_no_byte_twice_and_asks_again_for_a_lost_one() -> None:
    found = bytearray()
    one = download(found)
    one.begin()
    one.feed(chunk(0, 8))
    assert one.feed(chunk(0, 8)) == []
    assert one.feed(chunk(12, 4)) == [GetFile(request_id=NEXT, sha256=SHA256, offset=8, until=18)]
    assert bytes(found) == DATA[:8]


def test_a_late_chunk_is_used_when_it_is_the_next_one() -> None:
    found = bytearray()
    one = download(found)
    one.begin()
    one.begin()
    assert one.feed(chunk(0, 8, RID)) == [GetFile(request_id=NEXT, sha256=SHA256, offset=10, until=18)]
    assert one.feed(chunk(12, 4, RID)) == []
    assert one.feed(chunk(0, 8, NEXT)) == []
    assert one.feed(chunk(8, 10, NEXT)) != []
    assert bytes(found) == DATA[:18]


def test_a_download_refuses_what_is_too_large_or_not_what_was_asked_for() -> None:
    small = download(bytearray(), max_bytes=24)
    small.begin()
    small.feed(chunk(0, 8))
    assert failure(small) == "too_large"
    wrong = download(bytearray())
    wrong.begin()
    wrong.feed(chunk(0, 25, data=bytes(25)))
    assert failure(wrong) == "digest_mismatch"


def test_an_empty_file_goes_both_ways() -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    sent = upload(b"")
    sent.begin()
    assert sent.feed(send_from(0, 0)) == []
    sent.feed(Have(request_id=RID, sha256=nothing, size_bytes=0))
    assert sent.done
    found = Download(RID, nothing, bytearray().extend, max_bytes=0)
    assert found.begin() == [GetFile(request_id=RID, sha256=nothing, offset=0, until=CREDIT_BYTES)]
    found.feed(Chunk(request_id=RID, offset=0, size_bytes=0, data=b""))
    assert found.done


def test_messages_about_something_else_are_ignored() -> None:
    one, other = upload(), download(bytearray())
    for transfer in (one, other):
        transfer.begin()
        for message in (send_from(0, 9, "e" * 32), chunk(0, 9, "e" * 32), refused("busy", "e" * 32), object()):
            assert transfer.feed(message) == []
        assert not transfer.over
    assert one.feed(chunk(0, 9)) == []
    assert other.feed(send_from(0, 9)) == []


@given(st.integers(0, 2 * CHUNK_BYTES), st.integers(1, CHUNK_BYTES), st.integers(1, CREDIT_BYTES))
def test_chunks_cover_the_file_once_and_stay_within_the_credit(size: int, chunk_bytes: int, credit: int) -> None:
    chunk_bytes, credit = max(chunk_bytes, size // 50 + 1), max(credit, size // 50 + 1)
    data = bytes(size)
    one = upload(data, chunk_bytes)
    have = sum(len(message.data) for message in one.begin())
    assert have in (0, size)
    while have < size:
        sent = one.feed(send_from(have, min(have + credit, size)))
        assert sent
        for message in sent:
            assert message.offset == have
            assert 0 < len(message.data) <= chunk_bytes
            have += len(message.data)
    assert have == size
