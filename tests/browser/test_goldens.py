"""What a person fills in becomes, byte for byte, the workflow that template and values define."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from scripts.fleet import Fleet
from tests.browser.conftest import PATIENCE_MS
from tests.browser.seeds import INSTANT
from tests.core.comfyui.test_template_goldens import GOLDENS

expect.set_options(timeout=PATIENCE_MS)

MODELS = ("other.safetensors", "juggernautXL_v8Rundiffusion.safetensors")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    flags = [*INSTANT, "--models", ",".join(f"checkpoints/{name}" for name in MODELS)]
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=1, simulator=flags) as running:
        yield running


def test_a_filled_form_is_the_golden_workflow(fleet: Fleet, page: Page) -> None:
    given = json.loads((GOLDENS / "text-to-image" / "params.json").read_bytes())
    page.locator("details.group").evaluate_all("all => { for (const one of all) one.open = true; }")
    page.locator(f"[name=size][value='{given['size']}']").check(force=True)
    for key in ("sampler", "scheduler", "checkpoint"):
        page.locator(f"#f-{key}").select_option(given[key])
    for key in ("prompt", "seed", "steps", "cfg", "batch", "negative_prompt"):
        page.locator(f"#f-{key}").fill(str(given[key]))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".job[data-state=succeeded]")).to_be_visible()
    [job] = fleet.request("GET", "/api/v1/jobs?limit=5")["jobs"]
    with urllib.request.urlopen(f"{fleet.url}/api/v1/jobs/{job['id']}/workflow", timeout=30) as answer:
        assert answer.read() == (GOLDENS / "text-to-image" / "workflow.json").read_bytes()
