"""The way in where a fleet knows its people: a token, asked for in plain words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.fleet import Fleet
from tests.browser.conftest import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)

TOKEN = "a-token-that-is-long-enough-to-be-one"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    tokens = folder / "tokens"
    tokens.write_text(f"ann {hashlib.sha256(TOKEN.encode()).hexdigest()} admin\n")
    tokens.chmod(0o600)
    settings = {"web.token_file": str(tokens)}
    with Fleet(folder, workers=1, web=False, settings=settings) as running:
        running.start_web()
        yield running


@pytest.mark.parametrize(("theme", "width", "lang"), [("light", 1280, "zh-CN"), ("dark", 360, "en-US")])
def test_nothing_hinders_a_person(
    chromium: Browser,
    fleet: Fleet,
    hindrances: Callable[[Page], list[str]],
    *,
    theme: Literal["light", "dark"],
    width: int,
    lang: str,
) -> None:
    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=theme, locale=lang)
    page.goto(fleet.url)
    expect(page).to_have_url(f"{fleet.url}/login")
    assert hindrances(page) == []
    page.locator("#token").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_be_visible()
    assert hindrances(page) == []
    page.locator("#token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    page.close()
