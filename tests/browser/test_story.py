"""Stories and comic pages, on simulators that have the nodes of StoryDiffusion."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from scripts.fleet import Fleet
from tests.browser.cards import card, part
from tests.browser.conftest import PATIENCE_MS, OpenPage

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    flags = ["--speed", "50", "--custom-nodes", "storydiffusion"]
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=1, simulator=flags) as running:
        yield running


def pick(page: Page, title: str) -> None:
    page.get_by_role("radio", name=title, exact=True).check(force=True)


def rows(page: Page, key: str) -> Locator:
    return page.locator(f"[data-key={key}] .row")


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()


def test_a_story_with_another_panel(page: Page) -> None:
    pick(page, "Story")
    page.get_by_role("button", name="Add a panel").click()
    added = rows(page, "panels").nth(4)
    added.get_by_text("Tom").click()
    part(added, "text").fill("waves from the pier")
    generate(page)
    expect(part(card(page, "Story", "succeeded"), "many")).to_have_text("5 pictures")
    card(page, "Story", "succeeded").locator(".open").click()
    expect(page.get_by_role("dialog")).to_contain_text("[Tom] waves from the pier")


def test_a_renamed_character_is_renamed_in_the_panels(page: Page) -> None:
    pick(page, "Comic page")
    part(rows(page, "characters").nth(0), "name").fill("Ann")
    expect(part(rows(page, "panels").nth(0), "who").get_by_role("checkbox", name="Ann")).to_be_checked()
    generate(page)
    expect(part(card(page, "Comic page", "succeeded"), "picture")).to_be_visible()


def test_what_is_wrong_stands_at_its_row(page: Page) -> None:
    pick(page, "Story")
    part(rows(page, "panels").nth(1), "text").fill("")
    generate(page)
    expect(part(rows(page, "panels").nth(1), "problem")).to_have_text("Fill this in.")
    expect(part(rows(page, "panels").nth(1), "text")).to_be_focused()
    part(rows(page, "panels").nth(1), "text").fill("mends a net")
    expect(part(rows(page, "panels").nth(1), "problem")).to_be_hidden()
    expect(page.get_by_role("button", name="Add a character")).to_be_hidden()
    rows(page, "panels").nth(2).get_by_role("button", name="Remove this row").click()
    expect(rows(page, "panels")).to_have_count(3)


def test_what_only_the_server_knows_stands_at_its_row_too(open_page: OpenPage) -> None:
    page = open_page(faults=True)
    pick(page, "Story")
    page.get_by_role("button", name="Add a panel").click()
    part(rows(page, "panels").nth(4), "text").fill("a second empty sea")
    generate(page)
    expect(part(rows(page, "panels").nth(4), "problem")).to_have_text("Only one panel may be without a character.")
    expect(page.locator("#create-problem")).to_have_text("Mend the marked fields: Panels")
