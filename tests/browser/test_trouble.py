"""What a person is told, in their own language, when something is wrong that they did not do: a disk that is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from scripts.fleet import Fleet
from tests.browser.conftest import PATIENCE_MS, OpenPage
from web.pages.frame import PAGES
from web.words import LANGUAGES

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Its disk counts as full, for no disk of a test has so much room: not even what its worker can do is taken in."""
    settings = {"broker.min_free": "1 TiB"}
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=1, web=False, settings=settings) as running:
        running.start_web()
        yield running


@pytest.mark.parametrize("path", PAGES.values())
@pytest.mark.parametrize(("lang", "accept"), [("en", "en-US"), ("zh", "zh-CN")])
def test_a_full_disk_is_told_on_every_page(open_page: OpenPage, path: str, lang: str, accept: str) -> None:
    page = open_page(path, lang=accept)
    expect(page.locator("#notice")).to_have_text(LANGUAGES[lang].say("fleet.disk_full"))


@pytest.mark.parametrize(("lang", "accept"), [("en", "en-US"), ("zh", "zh-CN")])
def test_what_is_sent_to_a_full_disk_is_refused_in_plain_words(open_page: OpenPage, lang: str, accept: str) -> None:
    page = open_page(lang=accept, faults=True)
    page.locator("#f-prompt").fill("a pier")
    page.locator("#f-prompt").press("Control+Enter")
    expect(page.locator("#create-problem")).to_have_text(LANGUAGES[lang].say("refused.disk_full"))
    expect(page.locator("#f-prompt")).to_have_value("a pier")


def test_the_notice_hinders_nobody(open_page: OpenPage, hindrances: Callable[[Page], list[str]]) -> None:
    page = open_page()
    expect(page.locator("#notice")).to_be_visible()
    assert hindrances(page) == []
