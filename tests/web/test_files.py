"""Uploads and stored files: what is taken in, and how anything goes out to a browser."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from broker.protocol.files import CREDIT_BYTES
from tests.web.fake_broker import a_job, an_output
from tests.web.pictures import picture, png_of_size
from tests.web.stage import Answer, Stage, staged, until
from tests.web.test_auth import bearer, lines, token_file
from tests.web.test_jobs import submits
from web import files as channel
from web.answers import disposition


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged(max_upload_bytes=64 << 10) as stage:
        stage.with_worker()
        yield stage


def upload(stage: Stage, data: bytes, kind: str = "application/octet-stream") -> Answer:
    return stage.post("/api/v1/uploads", data, Content_Type=kind)


def form(data: bytes, name: str = "file", filename: str = "a.png") -> tuple[bytes, str]:
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
    return head.encode() + data + b"\r\n--XX--\r\n", "multipart/form-data; boundary=XX"


# ---- in


@pytest.mark.parametrize(("kind", "media_type", "ending"), [
    ("PNG", "image/png", "png"), ("JPEG", "image/jpeg", "jpg"), ("WEBP", "image/webp", "webp"),
])  # fmt: skip
def test_a_picture_is_stored_under_its_digest(shared: Stage, kind: str, media_type: str, ending: str) -> None:
    data = picture(kind, 12, 7)
    digest = hashlib.sha256(data).hexdigest()
    for answer in (upload(shared, data), upload(shared, *form(data))):
        assert answer.status == 201
        assert answer.headers["location"] == f"/api/v1/files/{digest}"
        assert answer.json == {
            "name": f"{digest}.{ending}", "sha256": digest, "size_bytes": len(data), "media_type": media_type,
            "width": 12, "height": 7,
        }  # fmt: skip
    assert shared.broker.files[digest] == data


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "%2e%2e%2fa", "C:\\x\\a.png", "x" * 300, "CON", ".htaccess", "a.png.exe", "\u202egnp.exe"],
)
def test_a_name_given_by_a_stranger_names_nothing(shared: Stage, name: str) -> None:
    data = picture()
    made = upload(shared, *form(data, filename=name)).json
    assert made["name"] == f"{hashlib.sha256(data).hexdigest()}.png"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", 415, "not_a_picture"),
        (b"<html><script>x()</script>", 415, "not_a_picture"),
        (b"%PDF-1.7", 415, "not_a_picture"),
        (b"GIF89a\1\0\1\0", 415, "not_a_picture"),
        (b"SIMPLE  = T", 415, "not_a_picture"),
        (b"II*\0\x08\0\0\0", 415, "not_a_picture"),
        (b"PK\3\4", 415, "not_a_picture"),
        (b"\x89PNG\r\n\x1a\n", 422, "damaged"),
        (picture()[:-1], 422, "damaged"),
        (png_of_size(0, 5), 422, "damaged"),
        (png_of_size(50_000, 50_000), 413, "too_many_pixels"),
        (png_of_size(2**31 - 1, 1), 413, "too_many_pixels"),
        (picture() + bytes(64 << 10), 413, "too_large"),
    ],
)
def test_what_is_no_picture_is_refused(shared: Stage, data: bytes, status: int, code: str) -> None:
    before = len(shared.broker.files)
    answer = upload(shared, data, "image/png")
    assert (answer.status, answer.code) == (status, code)
    assert len(shared.broker.files) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(picture(), name="picture")[0], "multipart/form-data; boundary=XX"),
        (form(picture())[0], "multipart/form-data"),
        (form(picture())[0][:-8], "multipart/form-data; boundary=XX"),
    ],
)
def test_a_form_that_is_none_is_400(shared: Stage, body: bytes, kind: str) -> None:
    assert upload(shared, body, kind).code == "bad_multipart"


#: The beginnings of requests that take their turn and let the rest wait.
SLOW = {
    "/api/v1/uploads": (2, b"Content-Length: 9\r\n", b""),
    "/api/v1/jobs": (8, b"Content-Type: application/json\r\nContent-Length: 99999\r\n", b" " * (64 << 10)),
}


@pytest.mark.parametrize("path", SLOW)
def test_nobody_keeps_others_from_sending_by_being_slow(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.turns.TURN_S", 0.05)
    count, fields, begun = SLOW[path]
    body: Any = picture() if "uploads" in path else {"template": "text-to-image", "params": {"prompt": "a"}}
    if "jobs" in path:
        body = json.dumps(body).encode() + b" " * (64 << 10)
    headers = {"Content-Type": "application/json"}
    with staged(token_file=token_file(tmp_path, lines("ann", "bob"))) as stage:
        stage.with_worker()
        ann, bob = {**headers, **bearer("ann")}, {**headers, **bearer("bob")}
        token = ann["Authorization"].encode()
        head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: %s\r\n%s\r\n" % (path.encode(), token, fields)
        slow = [stage.raw(head + begun) for _ in range(count)]
        until(lambda: stage.web.server.serving == count)
        until(lambda: stage.request("POST", path, body, ann).status == 503)
        answer = stage.request("POST", path, body, ann)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "5")
        assert stage.request("POST", path, body, bob).status in (201, 202)
        if "jobs" in path:
            small = {"template": "text-to-image", "params": {"prompt": "a"}}
            assert stage.request("POST", path, small, ann).status == 202, "small ones weigh nothing"
        for connection in slow:
            connection.close()
        until(lambda: stage.request("POST", path, body, ann).status in (201, 202))


def test_a_workflow_may_load_what_was_uploaded(shared: Stage) -> None:
    data = picture("PNG", 20, 20)
    made = upload(shared, data).json
    load = {"class_type": "LoadImage", "inputs": {"image": made["name"]}}
    workflow = {"1": load, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    assert shared.post("/api/v1/jobs", {"workflow": workflow}).status == 202
    [sent] = submits(shared)[-1].files
    assert (sent.name, sent.sha256, sent.size_bytes) == (made["name"], made["sha256"], len(data))
    load["inputs"] = {"image": "mine.png"}
    answer = shared.post("/api/v1/jobs", {"workflow": workflow})
    assert (answer.status, answer.code) == (422, "missing_file")
    files = [{"name": "mine.png", "sha256": made["sha256"]}]
    assert shared.post("/api/v1/jobs", {"workflow": workflow, "files": files}).status == 202
    assert submits(shared)[-1].files[0].name == "mine.png"


# ---- out


def test_a_picture_is_shown_and_may_be_kept_for_ever(shared: Stage) -> None:
    data = picture("PNG", 30, 30)
    digest = shared.broker.store(data)
    answer = shared.get(f"/api/v1/files/{digest}?name=dusk.png")
    headers = answer.headers
    assert (answer.status, answer.body) == (200, data)
    assert headers["content-type"] == "image/png"
    assert headers["content-length"] == str(len(data))
    assert headers["etag"] == f'"{digest}"'
    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-disposition"] == "inline; filename=\"dusk.png\"; filename*=UTF-8''dusk.png"
    head = shared.request("HEAD", f"/api/v1/files/{digest}")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
    again = shared.get(f"/api/v1/files/{digest}", If_None_Match=f'W/"{digest}"')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", f'"{digest}"')


@pytest.mark.parametrize("data", [b"<svg/>", b"<html>", b"\x1a\x45\xdf\xa3 video", b"{}", b"x"])
def test_everything_else_is_a_download(shared: Stage, data: bytes) -> None:
    answer = shared.get(f"/api/v1/files/{shared.broker.store(data)}")
    assert answer.body == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"


def test_a_large_file_arrives_whole(shared: Stage) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40_000
    assert len(data) > 4 * CREDIT_BYTES
    assert shared.get(f"/api/v1/files/{shared.broker.store(data)}").body == data


def test_an_empty_file_is_empty(shared: Stage) -> None:
    answer = shared.get(f"/api/v1/files/{shared.broker.store(b'')}")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=990-", 206, 990, 1000),
        ("bytes=-10", 206, 990, 1000),
        ("bytes=995-2000", 206, 995, 1000),
        ("bytes=0-", 200, 0, 1000),
        ("bytes=-5000", 200, 0, 1000),
        ("bytes=9-3", 200, 0, 1000),
        ("bytes=-", 200, 0, 1000),
        ("bytes=0-1,5-6", 200, 0, 1000),
        ("bytes=" + ",".join("0-1" for _ in range(1_000)), 200, 0, 1000),
        ("items=0-1", 200, 0, 1000),
        ("bytes=1000-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=99999999999999999-", 416, 0, 0),
    ],
)
def test_ranges(shared: Stage, asked: str, status: int, start: int, end: int) -> None:
    data = bytes(number % 251 for number in range(1_000))
    digest = shared.broker.store(data)
    answer = shared.get(f"/api/v1/files/{digest}", Range=asked)
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */1000"
        assert answer.code == "bad_range"
        return
    assert answer.body == data[start:end]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1000"
    whole = shared.get(f"/api/v1/files/{digest}", Range=asked, If_Range='"other"')
    assert (whole.status, whole.body) == (200, data)


def test_what_is_not_stored_is_404_and_a_lost_output_410(shared: Stage) -> None:
    for sha256 in ("0" * 64, "0" * 63, "..", "x" * 200):
        answer = shared.get(f"/api/v1/files/{sha256}")
        assert (answer.status, answer.code) == (404, "not_found")
    lost = an_output(b"lost")
    job = shared.broker.put(a_job(outputs=(lost,)))
    url = shared.get(f"/api/v1/jobs/{job.job_id}").json["outputs"][0]["url"]
    assert url == f"/api/v1/files/{lost.sha256}?job={job.job_id}"
    assert shared.get(url).code == "gone"
    assert shared.get(url.replace(job.job_id, str(uuid.uuid4()))).code == "not_found"


def test_a_file_channel_that_is_silent_is_503() -> None:
    with staged(reply_ms=150) as stage:
        digest = stage.broker.store(b"x")
        stage.broker.silent = True
        assert stage.get(f"/api/v1/files/{digest}").status == 503
        stage.broker.silent = False
        assert until(lambda: stage.get(f"/api/v1/files/{digest}").status == 200)


def test_an_upload_that_cannot_be_stored_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "GIVE_UP_MS", 100)
    with staged(reply_ms=150) as stage:
        stage.broker.silent = True
        assert stage.post("/api/v1/uploads", picture()).status == 503
        assert stage.broker.files == {}


def test_a_file_that_breaks_off_is_not_passed_for_whole() -> None:
    with staged(reply_ms=150) as stage:
        data = b"\x89PNG\r\n\x1a\n" + bytes(8 * CREDIT_BYTES)
        digest = stage.broker.store(data)
        connection = stage.raw(f"GET /api/v1/files/{digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        connection.head()
        stage.broker.silent = True
        assert len(connection.rest()) < len(data)


def test_sockets_of_the_file_channel_are_used_again(shared: Stage) -> None:
    digest = shared.broker.store(picture())
    for _ in range(20):
        assert shared.get(f"/api/v1/files/{digest}").status == 200
    gevent.joinall([gevent.spawn(shared.get, f"/api/v1/files/{digest}") for _ in range(30)])
    assert len(shared.web.files._idle) <= channel.MAX_IDLE


@pytest.mark.parametrize("name", ['a"b', "a\r\nb", "ü.png", "a/b", "x" * 500, "\u202e"])
def test_a_name_in_a_header_is_harmless(name: str) -> None:
    made = disposition(name, attachment=True)
    assert made.isascii() and made.isprintable()
    assert made.count('"') == 2
