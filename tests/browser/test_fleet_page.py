"""What an operator does on the fleet page, in a real browser against real processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from scripts.fleet import Fleet
from tests.browser.cards import part
from tests.browser.conftest import PATIENCE_MS, OpenPage

expect.set_options(timeout=PATIENCE_MS)


def submit(fleet: Fleet, prompt: str, *, steps: int) -> str:
    """60 steps last some 9 s: long enough to be met halfway on a busy machine."""
    body = {"template": "text-to-image", "params": {"prompt": prompt, "steps": steps}}
    return str(fleet.request("POST", "/api/v1/jobs", body)["id"])


def machine(page: Page, name: str) -> Locator:
    return page.locator(f"#cards .machine[data-worker={name}]")


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page("/fleet")


def test_a_card_tells_what_its_worker_does_and_its_chart_moves(fleet: Fleet, page: Page) -> None:
    jobs = [submit(fleet, prompt, steps=60) for prompt in ("a pier", "a barn", "a mill")]
    busy = page.locator("#cards .machine[data-standing=busy]").first
    expect(part(busy, "title")).to_have_text(re.compile("a (pier|barn|mill)"))
    expect(part(busy, "doing")).to_have_text(re.compile(r"KSampler · \d+ of 60"))
    expect(part(busy, "busy")).to_have_text("at work")
    expect(page.locator("#cards [data-part=staged]:visible")).to_have_text(re.compile("Next here: a "))
    expect(page.locator("#owners tbody tr")).to_have_text(re.compile("local[123][012]"))
    expect(page.locator("#models tbody th")).to_have_text(re.compile("juggernautXL"))
    line = part(busy, "line")
    drawn = line.get_attribute("d")
    expect(line).not_to_have_attribute("d", drawn or "")
    expect(part(busy, "chart")).to_have_attribute("aria-label", re.compile("The last 30 minutes: busy 100 % now"))
    for job in jobs:
        fleet.wait(job)
    expect(page.locator("#cards .machine[data-standing=ready]")).to_have_count(2)
    expect(page.locator("#tally")).to_have_text("2 ready")
    expect(page.locator("#nothing-waits")).to_be_visible()
    kept = fleet.request("GET", "/api/v1/workers/history")["workers"]["worker-1"]
    assert kept and kept[0]["vram_total_bytes"] > 0


def test_a_worker_is_paused_and_goes_on(fleet: Fleet, page: Page) -> None:
    one = machine(page, "worker-1")
    one.get_by_role("button", name="Pause").click()
    expect(part(one, "badge")).to_have_text("paused")
    expect(page.locator("#tally")).to_have_text("1 paused · 1 ready")
    assert [one["paused"] for one in fleet.request("GET", "/api/v1/workers")["workers"]].count(True) == 1
    one.get_by_role("button", name="Resume").click()
    expect(part(one, "badge")).to_have_text("ready")


def test_the_queue_is_paused_after_a_question_and_goes_on(fleet: Fleet, page: Page) -> None:
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_role("dialog").get_by_role("button", name="Not now").click()
    assert not fleet.request("GET", "/api/v1/stats")["paused"]
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause the queue").click()
    expect(page.locator("#notice")).to_contain_text("The queue is paused")
    job = submit(fleet, "held back", steps=2)
    expect(page.locator("#counts")).to_contain_text("1 waiting")
    page.get_by_role("button", name="Resume the queue").click()
    fleet.wait(job)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_drained_worker_leaves_after_a_question_and_comes_back_when_started(fleet: Fleet, page: Page) -> None:
    machine(page, "worker-2").get_by_role("button", name="Drain").click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("worker-2 will finish what it holds")
    asked.get_by_role("button", name="Drain").click()
    expect(machine(page, "worker-2")).to_have_count(0)
    fleet.processes["worker-2"].wait()
    fleet.start_worker(2)
    expect(part(machine(page, "worker-2"), "badge")).to_have_text("ready")


def test_a_button_that_is_barred_says_why(page: Page) -> None:
    restart = machine(page, "worker-1").get_by_role("button", name="Restart ComfyUI")
    expect(restart).to_have_attribute("aria-disabled", "true")
    restart.press("Enter")
    expect(page.locator("#toast")).to_contain_text("was not told how to restart")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_table_is_sorted_filtered_and_opened(page: Page) -> None:
    page.get_by_text("Table").click()
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Name").click()
    page.get_by_role("button", name="Name").click()
    expect(rows.locator("th")).to_have_text(["worker-2", "worker-1"])
    expect(page.locator("th[data-sort=name]")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("searchbox").fill("worker-1 4090")
    expect(rows.locator("th")).to_have_text(["worker-1"])
    page.get_by_role("searchbox").fill("nothing of the kind")
    expect(page.locator("#no-match")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="worker-1").press("Enter")
    sheet = page.get_by_role("dialog")
    expect(part(sheet, "name")).to_have_text("worker-1")
    expect(part(sheet, "chart")).to_have_attribute("aria-label", re.compile("busy"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="worker-1")).to_be_focused()
    page.reload()
    expect(rows).to_have_count(2)


@pytest.mark.parametrize("view", ["cards", "table"])
def test_nothing_hinders_a_person(open_page: OpenPage, hindrances: Callable[[Page], list[str]], view: str) -> None:
    for page in (open_page("/fleet", width=1440), open_page("/fleet", width=360, theme="dark", lang="zh-CN")):
        page.locator(f"#view [value={view}]").check(force=True)
        expect(page.locator(f"#{'rows' if view == 'table' else 'cards'} [data-worker]")).to_have_count(2)
        assert hindrances(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_fleet_out_of_reach_is_shown_as_it_was(fleet: Fleet, open_page: OpenPage) -> None:
    page = open_page("/fleet", faults=True)
    fleet.processes["broker"].kill()
    expect(page.locator("#stale")).to_have_text(re.compile("As it was at "))
    expect(page.locator("#cards .machine")).to_have_count(2)
    machine(page, "worker-1").get_by_role("button", name="Pause").click()
    expect(page.locator("#toast")).to_contain_text("The fleet cannot be reached")
    fleet.start_broker()
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator("#cards .machine[data-standing=ready]")).to_have_count(2)


def crowd(message: str | bytes) -> str | bytes:
    """The snapshot of a fleet of a thousand, made of one worker of this one."""
    if isinstance(message, bytes) or '"type":"snapshot"' not in message:
        return message
    snapshot = json.loads(message)
    one = {**snapshot["workers"][0], "held": []}
    snapshot["workers"] = [{**one, "name": f"gpu-{number:04}"} for number in range(1_000)]
    return json.dumps(snapshot)


def enlarge(route: WebSocketRoute) -> None:
    route.connect_to_server().on_message(lambda message: route.send(crowd(message)))


def test_of_a_thousand_workers_only_those_in_sight_are_in_the_document(page: Page) -> None:
    page.route_web_socket(re.compile("/api/v1/events"), enlarge)
    page.reload()
    rows = page.locator("#rows tr")
    expect(page.locator("#rows [data-worker=gpu-0000]")).to_be_visible()
    assert int(page.locator("#table").get_attribute("aria-rowcount") or 0) > 1_000
    assert rows.count() < 60
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#rows [data-worker=gpu-0999]")).to_be_visible()
    expect(page.locator("#rows [data-worker=gpu-0000]")).to_have_count(0)
    assert rows.count() < 60
    page.get_by_role("searchbox").fill("gpu-0500")
    expect(rows.locator("th")).to_have_text(["gpu-0500"])
    page.get_by_role("searchbox").fill("")
    page.get_by_text("Cards").click()
    more = page.get_by_role("button", name=re.compile(r"Show \d+ more"))
    expect(page.locator("#cards .machine")).to_have_count(48)
    more.press("Enter")
    expect(page.locator("#cards .machine")).to_have_count(96)
