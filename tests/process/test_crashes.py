"""What a power cut leaves: a model of a disk that promises no more than it should, and a broker that keeps its word."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.disk import Disk
from scripts.fleet import ROOT
from scripts.traced import Wire, calls


def cuts(disk: Disk, path: str) -> set[bytes | None]:
    """What a file may hold after a power cut; None: it may be missing."""
    images = [disk.cut(random.Random(seed)) for seed in range(300)]
    return {image.get(path) for image in images}


def test_neither_bytes_nor_names_are_there_for_certain_before_their_syncs() -> None:
    disk = Disk()
    disk.open(1, "/d/a", empty=False)
    disk.write(2, "/d/a", 0, b"x" * 1_024)
    found = cuts(disk, "/d/a")
    assert {None, b"", b"x" * 1_024, bytes(512) + b"x" * 512, b"x" * 512} <= found
    disk.sync(3, "/d/a")
    assert cuts(disk, "/d/a") == {None, b"x" * 1_024}
    disk.sync(4, "/d")
    assert cuts(disk, "/d/a") == {b"x" * 1_024}


def test_a_sync_covers_what_was_done_before_it_began() -> None:
    disk = Disk()
    disk.open(1, "/d/a", empty=False)
    disk.sync(2, "/d")
    disk.write(5, "/d/a", 0, b"late")
    disk.sync(4, "/d/a")
    assert b"" in cuts(disk, "/d/a")


def test_a_moved_file_has_one_of_its_names_until_the_folder_is_synced() -> None:
    disk = Disk()
    for folder in ("/d", "/d/e"):
        disk.folder(1, folder)
    disk.open(2, "/d/a", empty=False)
    for path in ("/", "/d"):
        disk.sync(3, path)
    disk.move(4, "/d/a", "/d/e/b")
    both = {("/d/a" in image, "/d/e/b" in image) for image in (disk.cut(random.Random(seed)) for seed in range(50))}
    assert both == {(True, False), (False, True)}
    disk.sync(5, "/d/e")
    assert cuts(disk, "/d/a") == {None}


def test_a_trace_is_read_in_the_order_in_which_calls_began() -> None:
    def shown(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    lines = [
        f"7 fdatasync(3<{shown('/d/a')}> <unfinished ...>",
        f'8 pwrite64(4<{shown("/d/b")}>, "{shown("ab")}", 2, 4096) = 2',
        "7 <... fdatasync resumed>) = 0",
        f"8 fsync(3<{shown('/d/a')}>(deleted)) = -1 EIO (Input/output error)",
        "8 +++ killed by SIGKILL +++",
    ]
    first, second, third = calls(lines)
    assert (first.name, first.fd, first.began, first.ended, first.result) == ("fdatasync", "/d/a", 0, 2, 0)
    assert (second.texts, second.numbers, second.result) == ([b"ab"], [2, 4096], 2)
    assert (third.fd, third.result) == ("", -1)


def test_messages_are_read_off_a_stream_however_it_is_cut() -> None:
    from broker.protocol.codec import encode
    from broker.protocol.worker import Recorded

    said = Recorded(job_id="00000000-0000-0000-0000-000000000001", attempt=2)
    *first, last = encode(said)
    stream = bytes(64) + b"\x04\x06\x05READY"
    stream += b"".join(bytes([1, len(frame)]) + frame for frame in first) + bytes([0, len(last)]) + last
    wire = Wire()
    assert [message for byte in stream for message in wire.feed("a", bytes([byte]))] == [said]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lying", [False, True])
def test_what_was_said_is_true_of_what_a_power_cut_leaves(lying: bool, tmp_path: Path) -> None:
    """And were the disk to sync nothing, that would be seen."""
    figures = tmp_path / "figures.json"
    command = [
        str(ROOT / "scripts" / "crashes"),
        "--images",
        "50",
        "--jobs",
        "24",
        "--seed",
        "5",
        "--json",
        str(figures),
    ]
    flags = ["--lying"] if lying else []
    ended = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == (1 if lying else 0), ended.stdout + ended.stderr
    found = {row["figure"]: row["value"] for row in json.loads(figures.read_text())}
    assert found.pop("images") == 50
    assert bool(found["images: job lost"]) == bool(found["images: file lost"]) == lying
