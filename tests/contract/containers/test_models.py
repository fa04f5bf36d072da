"""provisioning.sh models, run for real against a file server on loopback: fetched, resumed, proven, or loudly not."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest

from tests.contract.containers.conftest import Provisioning
from tests.contract.containers.file_server import FileServer, Mood

NAME = "checkpoints/model.safetensors"
CONTENT = random.Random(1).randbytes(1_500_000)
HALF = len(CONTENT) // 2


def served(moods: list[Mood] | None = None, content: bytes = CONTENT) -> FileServer:
    return FileServer({f"/{NAME}": content}, moods)


def leftovers(provisioning: Provisioning) -> list[str]:
    """Files where models go, but for the lock."""
    files = (path for path in provisioning.models.rglob("*") if path.is_file() and path.name != ".provisioning")
    return sorted(str(path.relative_to(provisioning.models)) for path in files)


def test_a_fresh_folder_is_filled(provisioning: Provisioning) -> None:
    with served() as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        said = provisioning.succeeds("models")
    assert target.read_bytes() == CONTENT
    assert leftovers(provisioning) == [NAME, f"{NAME}.sha256"]
    assert f"{NAME} is there" in said
    assert (provisioning.models / "gguf").is_dir(), (
        "made now, since the nodes make it at their start, when it is read-only"
    )


def test_a_second_run_does_nothing(provisioning: Provisioning) -> None:
    with served() as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        provisioning.succeeds("models")
        before = target.stat()
        provisioning.succeeds("models")
        assert len(server.asked) == 1
    assert target.stat() == before
    provisioning.succeeds("models")  # not even with the server gone


def test_a_broken_download_goes_on_where_it_stopped(provisioning: Provisioning) -> None:
    with served([Mood(cut_after=HALF)]) as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        provisioning.succeeds("models")
        assert server.asked == [(f"/{NAME}", 0), (f"/{NAME}", HALF)]
    assert target.read_bytes() == CONTENT


def test_the_next_run_goes_on_with_what_the_last_one_left(provisioning: Provisioning) -> None:
    with served([Mood(cut_after=HALF), Mood(cut_after=10), Mood(cut_after=0)]) as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        assert "broke off 3 times" in provisioning.fails("models")
        assert leftovers(provisioning) == [f"{NAME}.part"]
        provisioning.succeeds("models")
        assert server.asked[-1] == (f"/{NAME}", HALF + 10)
    assert target.read_bytes() == CONTENT
    assert leftovers(provisioning) == [NAME, f"{NAME}.sha256"]


def test_a_server_that_cannot_resume_is_asked_for_all_of_it(provisioning: Provisioning) -> None:
    with served([Mood(cut_after=HALF), Mood(no_ranges=True)]) as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        provisioning.succeeds("models")
        assert [first for _, first in server.asked] == [0, HALF, 0]
    assert target.read_bytes() == CONTENT


def test_a_passing_error_of_the_server_is_waited_out(provisioning: Provisioning) -> None:
    with served([Mood(status=503), Mood(status=429)]) as server:
        provisioning.offer(NAME, CONTENT, server.url)
        provisioning.succeeds("models")
        assert len(server.asked) == 3


def test_another_file_of_the_same_size_is_refused(provisioning: Provisioning) -> None:
    forged = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with served(content=forged) as server:
        provisioning.offer(NAME, CONTENT, server.url)
        line = provisioning.fails("models")
    assert line.startswith(
        f"{NAME}: {server.url}/{NAME} gave another file (sha256 {hashlib.sha256(forged).hexdigest()}"
    )
    assert leftovers(provisioning) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], b"<html>please sign in</html>"], ids=["one byte", "a page"])
def test_a_smaller_file_is_refused(provisioning: Provisioning, content: bytes) -> None:
    with served(content=content) as server:
        provisioning.offer(NAME, CONTENT, server.url)
        assert f"gave another file ({len(content)} bytes, want {len(CONTENT)})" in provisioning.fails("models")
    assert leftovers(provisioning) == []


def test_a_larger_file_is_not_even_fetched(provisioning: Provisioning) -> None:
    with served(content=CONTENT + b"x") as server:
        provisioning.offer(NAME, CONTENT, server.url)
        assert f"larger than the {len(CONTENT)} bytes of the table" in provisioning.fails("models")
    assert leftovers(provisioning) == []


def test_the_rest_of_another_file_is_not_the_rest(provisioning: Provisioning) -> None:
    """What is left of a download is of a file that the server has replaced since."""
    with served([Mood(cut_after=HALF)] + [Mood(cut_after=0)] * 2) as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        provisioning.fails("models")
        part = Path(f"{target}.part")
        part.write_bytes(b"\0" * HALF)
        assert "gave another file" in provisioning.fails("models")
        assert not part.exists()
        provisioning.succeeds("models")
    assert target.read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(provisioning: Provisioning) -> None:
    with FileServer({}) as server:
        provisioning.offer(NAME, CONTENT, server.url)
        assert provisioning.fails("models") == f"{server.url}/{NAME}: answers 404"
        assert len(server.asked) == 1
    assert leftovers(provisioning) == []


def test_a_server_that_is_away_is_named(provisioning: Provisioning) -> None:
    with served() as server:
        provisioning.offer(NAME, CONTENT, server.url)
    assert f"{server.url}/{NAME}: broke off 3 times" in provisioning.fails("models")


def test_the_first_failure_ends_it_and_what_came_before_stays(provisioning: Provisioning) -> None:
    with served() as server:
        provisioning.offer(NAME, CONTENT, server.url)
        provisioning.offer("vae/gone.safetensors", CONTENT, server.url)
        provisioning.offer("vae/later.safetensors", CONTENT, server.url)
        assert "vae/gone.safetensors: answers 404" in provisioning.fails("models")
        assert [path for path, _ in server.asked] == [f"/{NAME}", "/vae/gone.safetensors"]
    assert leftovers(provisioning) == [NAME, f"{NAME}.sha256"]


def test_a_disk_without_room_is_seen_before_anything_is_fetched(provisioning: Provisioning) -> None:
    with served() as server:
        provisioning.offer(NAME, CONTENT, server.url, size=10**17)
        assert "needs 100000000000000000 bytes more" in provisioning.fails("models")
        assert server.asked == []


class TestInPlaceAlready:
    """Files that somebody else put there."""

    def test_the_right_one_is_proven_and_not_fetched(self, provisioning: Provisioning) -> None:
        target = provisioning.offer(NAME, CONTENT, "http://127.0.0.1:9")
        target.parent.mkdir(parents=True)
        target.write_bytes(CONTENT)
        assert "checking what lies there" in provisioning.succeeds("models")
        assert "checking" not in provisioning.succeeds("models")

    def test_another_one_is_named_and_left_alone(self, provisioning: Provisioning) -> None:
        target = provisioning.offer(NAME, CONTENT, "http://127.0.0.1:9")
        target.parent.mkdir(parents=True)
        target.write_bytes(b"mine")
        assert "not the file of the table (4 bytes, want 1500000): move it away" in provisioning.fails("models")
        assert target.read_bytes() == b"mine"

    def test_one_that_changed_since_is_found(self, provisioning: Provisioning) -> None:
        with served() as server:
            target = provisioning.offer(NAME, CONTENT, server.url)
            provisioning.succeeds("models")
        target.write_bytes(CONTENT[::-1])
        after = Path(f"{target}.sha256").stat().st_mtime + 1
        os.utime(target, (after, after))
        assert "not the file of the table (sha256" in provisioning.fails("models")

    def test_a_new_line_of_the_table_is_not_satisfied_by_the_old_file(self, provisioning: Provisioning) -> None:
        with served() as server:
            provisioning.offer(NAME, CONTENT, server.url)
            provisioning.succeeds("models")
        provisioning.table.write_text("")
        provisioning.offer(NAME, CONTENT, server.url, sha256="0" * 64)
        assert "not the file of the table" in provisioning.fails("models")


@pytest.mark.parametrize(
    "line",
    [
        f"{NAME} 10 {'0' * 64}",
        f"{NAME} 10 {'0' * 63} http://127.0.0.1:9/x",
        f"{NAME} 1e3 {'0' * 64} http://127.0.0.1:9/x",
        f"{NAME} 10 {'0' * 64} http://127.0.0.1:9/x y",
        f"model.safetensors 10 {'0' * 64} http://127.0.0.1:9/x",
        f"../custom_nodes/evil.py 10 {'0' * 64} http://127.0.0.1:9/x",
        f"checkpoints/../../evil.py 10 {'0' * 64} http://127.0.0.1:9/x",
        f"/etc/passwd 10 {'0' * 64} http://127.0.0.1:9/x",
    ],
)
def test_a_bad_line_of_the_table_is_named(provisioning: Provisioning, line: str) -> None:
    provisioning.table.write_text(f"# models\n\n{line}\n")
    expected = f"{provisioning.table}:3: want FOLDER/FILE BYTES SHA256 ADDRESS, got: {line}"
    assert provisioning.fails("models").startswith(expected)


def test_a_table_may_end_without_a_line_break(provisioning: Provisioning) -> None:
    with served() as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        provisioning.table.write_text(provisioning.table.read_text().rstrip("\n"))
        provisioning.succeeds("models")
    assert target.exists()


def test_a_missing_table_is_named(provisioning: Provisioning) -> None:
    provisioning.table.unlink()
    assert provisioning.fails("models") == f"{provisioning.table}: cannot be read: set MODELS"


def test_a_server_of_ones_own_takes_the_place_of_all_addresses(provisioning: Provisioning) -> None:
    with FileServer({f"/mirror/{NAME}": CONTENT}) as server:
        target = provisioning.offer(NAME, CONTENT, "https://models.invalid/elsewhere")
        provisioning.succeeds("models", MODELS_FROM=f"{server.url}/mirror/")
    assert target.read_bytes() == CONTENT


def test_two_at_once_fetch_a_file_once(provisioning: Provisioning) -> None:
    with served() as server:
        target = provisioning.offer(NAME, CONTENT, server.url)
        done: list[subprocess.CompletedProcess[str]] = []
        threads = [threading.Thread(target=lambda: done.append(provisioning.run("models"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [run.returncode for run in done] == [0, 0, 0]
        assert len(server.asked) == 1
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "token"),
    [
        ("https://huggingface.co/a/b", 'oauth2-bearer = "hf-secret"'),
        ("https://civitai.com/api/download/models/1", 'oauth2-bearer = "civitai-secret"'),
        ("https://huggingface.co.evil.example/a/b", ""),
        ("http://huggingface.co/a/b", ""),
    ],
)
def test_a_token_goes_to_its_host_alone_and_to_no_command_line(
    provisioning: Provisioning, tmp_path: Path, address: str, token: str
) -> None:
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/arguments\ncat >{tmp_path}/config\necho 404\nexit 22\n')
    curl.chmod(0o755)
    provisioning.offer(NAME, CONTENT, address)
    path = f"{curl.parent}:{os.environ['PATH']}"
    assert "answers 404" in provisioning.fails(
        "models", PATH=path, HF_TOKEN="hf-secret", CIVITAI_TOKEN="civitai-secret"
    )
    assert (tmp_path / "config").read_text().strip() == token
    assert "secret" not in (tmp_path / "arguments").read_text()
