"""Finding the cards of jobs on the page, and what is on them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect


def card(page: Page, prompt: str, state: str = "") -> Locator:
    """The job of this prompt, once it is in this state."""
    which = f'.job[data-state="{state}"]' if state else ".job"
    return page.locator(which).filter(has=page.get_by_role("heading", name=prompt, exact=True))


def part(found: Locator, name: str) -> Locator:
    return found.locator(f"[data-part={name}]")


def natural_size(image: Locator) -> Any:
    expect(image).to_have_js_property("complete", True)
    return image.evaluate("one => [one.naturalWidth, one.naturalHeight]")
