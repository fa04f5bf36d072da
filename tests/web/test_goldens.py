"""A form sent to the API gives, byte for byte, the workflow that its template and its values define."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.core.comfyui.test_template_goldens import CASES, GOLDENS
from tests.web.stage import Stage, staged
from web.api import wishes


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("case", CASES)
def test_what_is_stored_and_given_back_is_the_golden_workflow(
    shared: Stage, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(wishes, "draw", lambda call, key: 2**53 - 1)
    params = json.loads((GOLDENS / case / "params.json").read_bytes())
    golden = (GOLDENS / case / "workflow.json").read_bytes()
    for value in params.values():
        if isinstance(value, str) and value.endswith(".png"):
            shared.broker.files[value.removesuffix(".png")] = b"picture"
    answer = shared.post("/api/v1/jobs", {"template": case.partition(".")[0], "params": params})
    assert answer.status == 202, answer.body
    job = answer.json["id"]
    assert shared.broker.submits[job].workflow == golden
    assert shared.get(f"/api/v1/jobs/{job}/workflow").body == golden
    told = shared.get(f"/api/v1/jobs/{job}").json
    again = shared.post("/api/v1/jobs", {"template": told["template"], "params": told["params"]}).json["id"]
    assert shared.broker.submits[again].workflow == golden
