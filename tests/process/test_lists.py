"""Groups, search, archives and deleting in a whole fleet: processes, sockets and disk as they are in service."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from scripts.fleet import Fleet

GROUP = {
    "template": "text-to-image",
    "params": {"prompt": "海边的灯塔, a quiet lighthouse", "seed": 7, "size": "256x256"},
    "count": 3,
    "labels": ["evening"],
}
KEY = {"Idempotency-Key": "the-evening"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("lists"), workers=2, simulator=["--zero-work"]) as running:
        yield running


def ids(fleet: Fleet, query: str) -> list[str]:
    return [job["id"] for job in fleet.request("GET", f"/api/v1/jobs?{query}")["jobs"]]


def refusal(fleet: Fleet, body: Any, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(
        f"{fleet.url}/api/v1/jobs", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=30)
    return answer.value.code, json.loads(answer.value.read())["error"]["code"]


def test_a_group_is_made_found_packed_and_deleted_for_good(fleet: Fleet) -> None:
    made = fleet.request("POST", "/api/v1/jobs", GROUP, KEY)
    assert fleet.request("POST", "/api/v1/jobs", GROUP, KEY)["group"] == made["group"]
    group = made["group"]["id"]
    members = [job["id"] for job in made["jobs"]]
    ended = [fleet.wait(job) for job in members]
    assert {job["state"] for job in ended} == {"succeeded"}
    seeds = [fleet.request("GET", f"/api/v1/jobs/{job}")["params"]["seed"] for job in members]
    assert seeds == [7, 8, 9]
    for query in (f"group={group}", "label=evening", "template=text-to-image", f"q={quote('灯塔')}", "q=quiet+light"):
        assert ids(fleet, query) == members[::-1], query
    assert ids(fleet, "q=nothing") == [] and ids(fleet, f"group={group}&state=failed") == []

    with urllib.request.urlopen(f"{fleet.url}/api/v1/jobs/zip?ids={','.join(members)}", timeout=30) as answer:
        packed = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert packed.testzip() is None and len(packed.namelist()) == 4
    assert all(packed.read(name).startswith(b"\x89PNG") for name in packed.namelist()[:3])

    done = fleet.request("POST", "/api/v1/jobs/bulk", {"verb": "delete", "ids": members})
    assert done == {"done": members, "refused": []}
    assert ids(fleet, f"group={group}") == [] and ids(fleet, "q=lighthouse") == []
    assert refusal(fleet, GROUP, KEY) == (409, "deleted")
