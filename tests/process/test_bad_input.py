"""What a fleet answers to input that is wrong: a clear 4xx in the one error shape, and nothing changes."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from scripts.fleet import ROOT, Fleet

API = json.loads((ROOT / "comfyui" / "api.json").read_text())
UNKNOWN = "0a1b2c3d-0000-4000-8000-00000000002a"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("bad-input")
    with Fleet(folder, workers=1, simulator=["--zero-work"]) as running:
        yield running


def changed(node: str, **inputs: Any) -> Any:
    workflow = json.loads(json.dumps(API))
    workflow[node]["inputs"].update(inputs)
    return workflow


def refused(fleet: Fleet, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Status and error of a call that must be refused, with the fleet's counts unchanged by it."""
    before = fleet.request("GET", "/api/v1/stats")
    request = urllib.request.Request(fleet.url + path, body, {"Content-Type": "application/json"}, method=method)
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=30)
    said = json.loads(answer.value.read())
    assert said.keys() == {"error"}
    assert said["error"].keys() == {"code", "message", "details"}
    after = fleet.request("GET", "/api/v1/stats")
    assert {**after, "uptime_ms": 0} == {**before, "uptime_ms": 0}
    return answer.value.code, said["error"]


def no_output() -> Any:
    return {key: node for key, node in API.items() if node["class_type"] != "SaveImage"}


UI_FORMAT = {"nodes": [{"id": 1, "type": "KSampler", "pos": [0, 0]}], "links": [], "version": 0.4}

CASES: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "UI format": ({"workflow": UI_FORMAT}, 422, ("API",)),
    "a link to a missing node": ({"workflow": changed("8", samples=["99", 0])}, 422, ("8", "99")),
    "a cycle": ({"workflow": changed("5", width=["8", 0])}, 422, ("cycle",)),
    "a node that links to itself": ({"workflow": changed("8", samples=["8", 0])}, 422, ("8",)),
    "an unknown node": (
        {"workflow": {**API, "9": {"class_type": "SaveImages", "inputs": {"images": ["8", 0]}}}},
        422,
        ("SaveImages", "SaveImage"),
    ),
    "an unknown model": (
        {"workflow": changed("4", ckpt_name="juggernaut.safetensors")},
        422,
        ("juggernaut.safetensors", "juggernautXL_v8Rundiffusion.safetensors"),
    ),
    "an over-long prompt": ({"template": "text-to-image", "params": {"prompt": "a " * 200_000}}, 413, ("prompt",)),
    "a number where text belongs": ({"template": "text-to-image", "params": {"prompt": 7}}, 422, ("prompt",)),
    "a seed below 0": ({"workflow": changed("3", seed=-1)}, 400, ("seed",)),
    "a seed over 64 bits": ({"workflow": changed("3", seed=2**64)}, 400, ("64 bits",)),
    "a seed that is no integer": ({"workflow": changed("3", seed=1.5)}, 400, ("seed",)),
    "too many steps": ({"workflow": changed("3", steps=10**9)}, 422, ("steps",)),
    "no output": ({"workflow": no_output()}, 422, ("output",)),
    "a path in a file name": (
        {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "../../etc/passwd"}}}},
        422,
        ("1",),
    ),
    "neither workflow nor template": ({}, 422, ("workflow", "template")),
    "an unknown template": ({"template": "cats", "params": {}}, 422, ("cats", "text-to-image")),
    "an unknown field": ({"template": "text-to-image", "params": {"prompt": "x", "stepz": 3}}, 422, ("stepz", "steps")),
    "an unknown key": ({"workflow": API, "prioritee": 3}, 422, ("prioritee",)),
    "a priority out of range": ({"workflow": API, "priority": 10**9}, 422, ("priority",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_submit_names_what_is_wrong(fleet: Fleet, case: str) -> None:
    body, status, words = CASES[case]
    code, error = refused(fleet, "POST", "/api/v1/jobs", json.dumps(body).encode())
    assert code == status, error
    for word in words:
        assert word in error["message"] + json.dumps(error["details"]), error


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe{\x00}\x00", b'{"workflow": NaN}'])
def test_what_is_not_json_is_a_400(fleet: Fleet, body: bytes) -> None:
    code, _ = refused(fleet, "POST", "/api/v1/jobs", body)
    assert code == 400


def test_a_body_of_20_mb_is_a_413(fleet: Fleet) -> None:
    code, error = refused(fleet, "POST", "/api/v1/jobs", b'{"workflow": "' + b"x" * (20 << 20) + b'"}')
    assert code == 413
    assert "MiB" in error["message"] or "bytes" in error["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/story")])
def test_an_unknown_job_is_a_404(fleet: Fleet, method: str, path: str) -> None:
    code, error = refused(fleet, method, f"/api/v1/jobs/{UNKNOWN}{path}", b"{}" if method == "POST" else b"")
    assert code == 404
    assert UNKNOWN in error["message"]


def test_a_finished_job_cannot_be_cancelled(fleet: Fleet) -> None:
    job = fleet.request("POST", "/api/v1/jobs", {"workflow": changed("3", seed=5)})
    fleet.wait(job["id"])
    code, error = refused(fleet, "DELETE", f"/api/v1/jobs/{job['id']}", b"")
    assert code == 409
    assert "succeeded" in error["message"]
    code, _ = refused(fleet, "POST", f"/api/v1/jobs/{job['id']}/retry", b"{}")
    assert code == 409


def test_a_workflow_of_200_kb_is_accepted(fleet: Fleet) -> None:
    workflow = changed("6", text="a very long description, " * 3_000)
    workflow["6"]["_meta"] = {"title": "x" * 130_000}
    body = {"workflow": workflow}
    assert len(json.dumps(body)) > 200_000
    job = fleet.request("POST", "/api/v1/jobs", body)
    assert fleet.wait(job["id"])["state"] == "succeeded"


def test_a_chunked_body_is_accepted(fleet: Fleet) -> None:
    body = json.dumps({"workflow": changed("3", seed=77)}).encode()
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
    parts = urlsplit(fleet.url)
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head.encode() + chunks)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 202 ")


def test_one_key_is_one_job(fleet: Fleet) -> None:
    key = {"Idempotency-Key": "order-7"}
    first = fleet.request("POST", "/api/v1/jobs", {"workflow": changed("3", seed=8)}, key)
    again = fleet.request("POST", "/api/v1/jobs", {"workflow": changed("3", seed=8)}, key)
    assert first["id"] == again["id"]
    with pytest.raises(urllib.error.HTTPError) as other:
        fleet.request("POST", "/api/v1/jobs", {"workflow": changed("3", seed=9)}, key)
    assert other.value.code == 409
    other.value.close()


@pytest.mark.parametrize("module", ["broker", "web", "worker"])
@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("broker.leese=3 s", ("leese", "lease")),
        ("broker.lease=3", ("lease", "3")),
        ("network.workers=tcp://0.0.0.0:5571", ("network", "curve")),
    ],
)
def test_a_bad_setting_ends_a_start_with_2_and_its_name(
    module: str, flag: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    command = ROOT / "scripts" / f"start_{module}"
    ended = subprocess.run(
        [command, "--set", flag, "--set", f"broker.data={tmp_path}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last
    assert "Traceback" not in ended.stderr
