"""What the studio says while nothing goes on: a ComfyUI is silent, a worker is gone, a broker does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from scripts.fleet import Fleet
from tests.browser.cards import card, part
from tests.browser.conftest import PATIENCE_MS, OpenPage

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    settings = {"broker.heartbeat": "500 ms", "broker.lease": "5 s"}
    slow = ["--step-s", "0.3"]
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=1, simulator=slow, settings=settings) as running:
        yield running


def ask(page: Page, prompt: str, count: int) -> None:
    page.locator("details.group").evaluate("one => { one.open = true; }")
    page.locator("#f-steps").fill("150")
    page.locator("#f-prompt").fill(prompt)
    page.locator("#count").fill(str(count))
    page.locator("#f-prompt").press("Control+Enter")


def test_a_queue_that_has_just_come_moves_nothing_yet(page: Page) -> None:
    moved = page.evaluate(
        """() => {
          const [waiting, pictures] = [document.getElementById("waiting"), document.getElementById("pictures")];
          const before = pictures.getBoundingClientRect().top;
          waiting.hidden = false;
          for (const one of waiting.getAnimations()) one.pause();
          const after = pictures.getBoundingClientRect().top;
          waiting.hidden = true;
          return after - before;
        }"""
    )
    assert moved == 0


def test_what_is_sent_is_said_to_be_on_its_way_until_it_is_answered(open_page: OpenPage) -> None:
    page, held = open_page(faults=True), list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/api/v1/jobs", hold)
    button = page.locator(".send .main")
    ask(page, "on its way", 1)
    expect(button).to_have_attribute("aria-busy", "true")
    assert button.evaluate("one => getComputedStyle(one, '::after').content") == '"Sending…"'
    for _ in range(PATIENCE_MS // 20):
        if held:
            break
        page.wait_for_timeout(20)
    held[0].fulfill(status=503, json={"error": {"code": "broker_away", "message": "no answer"}})
    expect(page.locator("#create-problem")).not_to_be_empty()
    expect(button).not_to_have_attribute("aria-busy", "true")


def test_a_standstill_is_told_with_its_reason_and_without_promises(fleet: Fleet, page: Page) -> None:
    worker = page.locator(".worker").first
    expect(part(worker, "card")).to_have_text("RTX 4090")
    ask(page, "a standstill", 3)
    made = card(page, "a standstill")
    expect(part(worker, "percent")).to_be_visible()
    expect(part(worker, "memory")).to_have_text(re.compile(r"^\d+(\.\d)? of 24 GiB VRAM$"))

    fleet.processes["simulator-1"].kill()
    expect(worker).to_have_attribute("data-state", "silent")
    reason = part(worker, "doing")
    expect(reason).to_have_text("ComfyUI does not answer")
    assert reason.evaluate("one => one.scrollWidth <= one.clientWidth")
    for name in ("percent", "next", "bar", "title"):
        expect(part(worker, name)).to_be_hidden()
    expect(part(made, "took")).to_have_text("ComfyUI does not answer")

    fleet.processes["worker-1"].child.kill_all()
    expect(worker).to_have_attribute("data-state", "lost")
    expect(reason).to_have_text("Silent; its jobs are queued again")
    expect(part(made, "took")).to_have_text("Waits: no worker is there")
    row, queue = page.locator("#queue .job"), page.locator("#queue")
    expect(row).to_have_count(1)
    boxes = row.bounding_box(), queue.bounding_box()
    assert boxes[0] is not None and boxes[1] is not None
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"], abs=1), "one row takes the whole of the queue"
    assert boxes[1]["height"] < 60, "and is a slim one"
