"""Archives of what jobs made: whole, safe in their names, never whole in memory, and nobody's but the asker's."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.protocol.records import JobState
from tests.web.fake_broker import a_job, an_output
from tests.web.stage import Answer, Stage, staged
from tests.web.test_auth import bearer, lines, token_file
from web.zips import archive


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def made(stage: Stage, *files: bytes, title: str = "a lighthouse", owner: str = "local", **changes: str) -> str:
    for data in files:
        stage.broker.store(data)
    outputs = tuple(an_output(data, **changes) for data in files)
    return stage.broker.put(a_job(title=title, owner=owner, state=JobState.SUCCEEDED, outputs=outputs)).job_id


def opened(answer: Answer) -> zipfile.ZipFile:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/zip"
    packed = zipfile.ZipFile(io.BytesIO(answer.body))
    assert packed.testzip() is None
    return packed


def test_all_files_of_the_jobs_are_in_it_with_a_list(shared: Stage) -> None:
    first, second = made(shared, b"one", b"two" * 300_000), made(shared, b"three", title="灯塔")
    packed = opened(shared.post("/api/v1/jobs/zip", {"ids": [first, second]}))
    assert {name: packed.read(name) for name in packed.namelist() if name != "manifest.json"} == {
        f"a-lighthouse-{first[-8:]}-1.png": b"one",
        f"a-lighthouse-{first[-8:]}-2.png": b"two" * 300_000,
        f"灯塔-{second[-8:]}-1.png": b"three",
    }
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in packed.infolist())
    manifest = json.loads(packed.read("manifest.json"))
    assert [job["id"] for job in manifest["jobs"]] == [first, second] and manifest["missing"] == []
    told = [file["name"] for job in manifest["jobs"] for file in job["files"]]
    assert [*told, "manifest.json"] == packed.namelist()
    link = shared.get(f"/api/v1/jobs/zip?ids={first},{second}")
    assert opened(link).namelist() == packed.namelist()


def test_files_of_jobs_that_would_be_called_alike_are_told_apart(shared: Stage) -> None:
    ids = [f"{digit * 8}-0000-4000-8000-000000000001" for digit in "12"]
    for job_id in ids:
        shared.broker.put(dataclasses.replace(shared.broker.jobs[made(shared, job_id.encode())], job_id=job_id))
    packed = opened(shared.post("/api/v1/jobs/zip", {"ids": ids}))
    assert len(set(packed.namelist())) == 3
    manifest = json.loads(packed.read("manifest.json"))
    for job in manifest["jobs"]:
        assert [packed.read(file["name"]) for file in job["files"]] == [job["id"].encode()]


@pytest.mark.parametrize("title", ["../../etc/passwd", "C:\\Windows\\x", "a\u2028b", "con", "x" * 500, "<b>.\x7f"])
def test_no_name_leads_out_of_its_folder(shared: Stage, title: str) -> None:
    job = made(shared, b"one", title=title, name="../../evil.sh\n")
    [name, _] = opened(shared.post("/api/v1/jobs/zip", {"ids": [job]})).namelist()
    assert not set(name) & set("/\\:<>\u2028\n\x7f") and ".." not in name and len(name) < 90
    assert name.endswith(f"{job[-8:]}-1")


def test_a_file_that_is_not_stored_any_more_is_named_and_the_others_come(
    shared: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    job = made(shared, b"here", b"lost")
    del shared.broker.files[an_output(b"lost").sha256]
    for _ in range(3):
        packed = opened(shared.post("/api/v1/jobs/zip", {"ids": [job]}))
        assert packed.namelist() == [f"a-lighthouse-{job[-8:]}-1.png", "manifest.json"]
        assert json.loads(packed.read("manifest.json"))["missing"] == [f"a-lighthouse-{job[-8:]}-2.png"]
    assert len([line for line in caplog.records if line.levelname == "ERROR"]) == 1, "nobody fills the log by asking"


def test_what_cannot_be_packed_is_refused(shared: Stage) -> None:
    nothing = shared.broker.put(a_job()).job_id
    for body, status, code in (
        ({"ids": [nothing]}, 404, "nothing_made"),
        ({"ids": [str(uuid.uuid4())]}, 404, "not_found"),
        ({"ids": []}, 422, "bad_ids"),
        ({}, 422, "bad_ids"),
    ):
        answer = shared.post("/api/v1/jobs/zip", body)
        assert (answer.status, answer.code) == (status, code)
    assert shared.get("/api/v1/jobs/zip").code == "bad_ids"
    assert shared.get(f"/api/v1/jobs/zip?ids={','.join(['a'] * 201)}").code == "bad_ids"


def test_nobody_packs_the_files_of_others(tmp_path: Path) -> None:
    with staged(token_file=token_file(tmp_path, lines("root", "ann", "bob"))) as stage:
        mine, theirs = made(stage, b"mine", owner="ann"), made(stage, b"theirs", owner="bob")
        assert stage.post("/api/v1/jobs/zip", {"ids": [theirs]}, **bearer("ann")).code == "not_found"
        packed = opened(stage.post("/api/v1/jobs/zip", {"ids": [theirs, mine]}, **bearer("ann")))
        assert packed.namelist() == [f"a-lighthouse-{mine[-8:]}-1.png", "manifest.json"]
        manifest = json.loads(packed.read("manifest.json"))
        assert [job["id"] for job in manifest["jobs"]] == [mine] and manifest["not_found"] == [theirs]
        assert len(opened(stage.post("/api/v1/jobs/zip", {"ids": [mine]}, **bearer("ann"))).namelist()) == 2
        assert len(opened(stage.post("/api/v1/jobs/zip", {"ids": [mine, theirs]}, **bearer("root"))).namelist()) == 3


def test_an_archive_is_never_whole_in_memory() -> None:
    piece, count = b"x" * (256 << 10), 200
    tracemalloc.start()
    size = sum(map(len, archive((f"{n}.png", 4 * len(piece), iter([piece] * 4)) for n in range(count))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 4 * count * len(piece)
    assert peak < 16 * len(piece)
