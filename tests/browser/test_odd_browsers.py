"""Browsers that are not as others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from scripts.fleet import Fleet
from tests.browser.cards import card, part
from tests.browser.conftest import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)

#: As where the settings forbid a page to keep anything.
NO_STORAGE = """Object.defineProperty(window, "localStorage", {
  get() { throw new DOMException("denied", "SecurityError"); },
});"""
#: As on Android, where only a service worker may show one; and nobody looks at the page.
NO_NOTICES = """
localStorage.setItem("notices", "on");
window.Notification = class {
  static permission = "granted";
  constructor() { throw new TypeError("Illegal constructor"); }
};
Object.defineProperty(document, "visibilityState", { get: () => "hidden" });"""
#: `ahead` is how far its clock is ahead; `line` is its connection to the fleet.
WRONG_CLOCK = """
window.ahead = 600_000;
const now = Date.now;
Date.now = () => now() + window.ahead;
window.WebSocket = class extends WebSocket { constructor(url) { super(url); window.line = this; } };"""
SKEW = "async () => (await import('/static/shell.js')).now() - Date.now()"


class OpenOdd(Protocol):
    def __call__(self, script: str, path: str = ...) -> Page: ...


@pytest.fixture
def open_odd(chromium: Browser, fleet: Fleet) -> Iterator[OpenOdd]:
    """Opens a page in a browser that this script makes odd."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(script: str, path: str = "/") -> Page:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-US"))
        contexts[-1].set_default_timeout(PATIENCE_MS)
        contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(fleet.url + path)
        page.wait_for_selector("#link[data-link=live]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(page: Page, prompt: str) -> None:
    page.locator("#f-prompt").fill(prompt)
    page.locator("#f-prompt").press("Control+Enter")


def test_a_browser_that_keeps_nothing_has_every_page(open_odd: OpenOdd) -> None:
    page = open_odd(NO_STORAGE)
    ask(page, "a heron that nobody remembers")
    expect(card(page, "a heron that nobody remembers")).to_have_count(1)
    page.locator("#theme").click()
    open_odd(NO_STORAGE, "/fleet")
    open_odd(NO_STORAGE, "/gallery")
    open_odd(NO_STORAGE, "/templates")


def test_a_job_is_drawn_as_done_where_no_notice_can_tell_of_it(open_odd: OpenOdd) -> None:
    page = open_odd(NO_NOTICES)
    ask(page, "a bittern in the reeds")
    expect(card(page, "a bittern in the reeds", "succeeded")).to_have_count(1)


def test_the_times_of_a_job_are_those_of_the_server_whatever_the_clock_of_the_browser_says(open_odd: OpenOdd) -> None:
    page = open_odd(WRONG_CLOCK)
    until(lambda: page.evaluate(SKEW) < -590_000)
    ask(page, "a crane over the bay")
    card(page, "a crane over the bay").locator("[data-part=open]").click()
    timings = part(page.locator("#viewer"), "timings")
    expect(timings).to_be_visible()
    assert "10 min" not in timings.inner_text()


def test_a_clock_that_is_set_right_is_believed_again(open_odd: OpenOdd) -> None:
    page = open_odd(WRONG_CLOCK)
    until(lambda: page.evaluate(SKEW) < -590_000)
    page.evaluate("() => { window.ahead = 0; window.line.close(); }")
    until(lambda: abs(page.evaluate(SKEW)) < 5_000)
