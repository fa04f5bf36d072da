"""Every page, for everybody: nothing that axe-core knows to hinder a person, in both themes, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from web.pages.frame import PAGES


@pytest.mark.parametrize("path", PAGES.values(), ids=list(PAGES))
@pytest.mark.parametrize(("theme", "width", "lang"), [("light", 1280, "zh-CN"), ("dark", 360, "en-US")])
def test_nothing_hinders_a_person(
    open_page: OpenPage,
    hindrances: Callable[[Page], list[str]],
    *,
    path: str,
    theme: Literal["light", "dark"],
    width: int,
    lang: str,
) -> None:
    assert hindrances(open_page(path, theme=theme, width=width, lang=lang)) == []
