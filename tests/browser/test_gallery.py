"""The gallery: what a person finds in it, and does with what was found."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from scripts.fleet import Fleet
from tests.browser.conftest import PATIENCE_MS, OpenPage
from tests.browser.seeds import INSTANT, fill, made, painted
from web.assets import STATIC

expect.set_options(timeout=PATIENCE_MS)

SEEDED = 170
MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>&amp;'


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=2, simulator=INSTANT) as running:
        fill(running, SEEDED)
        yield running


@pytest.fixture
def gallery(open_page: OpenPage) -> Page:
    return open_page("/gallery")


def cards(page: Page) -> Locator:
    return page.locator(".shot[data-key]")


def shot(page: Page, title: str) -> Locator:
    return cards(page).filter(has=page.get_by_role("heading", name=title, exact=True))


def titles(page: Page) -> list[str]:
    found: list[str] = cards(page).locator("h2").all_text_contents()
    return found


def scroll_to_the_end(page: Page) -> None:
    page.mouse.move(600, 500)
    while shot(page, "picture 0").count() == 0:
        page.mouse.wheel(0, 4_000)
        page.wait_for_function(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        )
    expect(shot(page, "picture 0")).to_be_visible()


def test_older_jobs_come_as_one_scrolls_and_few_are_in_the_document(gallery: Page) -> None:
    expect(shot(gallery, f"picture {SEEDED - 1}")).to_be_visible()
    scroll_to_the_end(gallery)
    assert cards(gallery).count() < SEEDED / 2
    expect(shot(gallery, "picture 0").locator("img")).to_have_js_property("complete", True)
    gallery.keyboard.press("Home")
    expect(shot(gallery, f"picture {SEEDED - 1}")).to_be_in_viewport()


def test_a_page_left_open_lets_go_of_old_jobs_and_they_come_again_as_one_scrolls(open_page: OpenPage) -> None:
    page = open_page("/fleet")
    fewer = {"gallery.js": ("MANY = 5_000", "MANY = 160"), "ask.js": ("MOST = 200", "MOST = 50")}

    def served(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        text = (STATIC / name).read_text("utf-8")
        assert fewer[name][0] in text
        route.fulfill(body=text.replace(*fewer[name]), content_type="text/javascript")

    for name in fewer:
        page.route(f"**/static/{name}", served)
    page.get_by_role("link", name="Gallery", exact=True).click()
    expect(shot(page, f"picture {SEEDED - 1}")).to_be_visible()
    newest: list[str] = []
    page.on("request", lambda asked: newest.append(asked.url) if "limit=50" in asked.url else None)
    scroll_to_the_end(page)
    page.wait_for_timeout(2_000)
    assert not newest, "whoever looks at old ones keeps them"
    with page.expect_request(lambda asked: "limit=50" in asked.url, timeout=60_000):
        page.keyboard.press("Home")
    expect(shot(page, f"picture {SEEDED - 1}")).to_be_in_viewport()
    page.wait_for_timeout(3_000)
    assert len(newest) == 1, "once, not again and again"
    scroll_to_the_end(page)


def test_whoever_comes_back_is_where_they_were(gallery: Page) -> None:
    scroll_to_the_end(gallery)
    shot(gallery, "picture 0").locator(".open").click()
    expect(gallery.get_by_role("dialog")).to_be_visible()
    gallery.keyboard.press("Escape")
    expect(shot(gallery, "picture 0")).to_be_in_viewport()
    gallery.get_by_role("link", name="Fleet", exact=True).click()
    gallery.wait_for_url("**/fleet")
    gallery.go_back()
    expect(shot(gallery, "picture 0")).to_be_in_viewport()
    gallery.get_by_role("combobox", name="Label").select_option("odd")
    expect(shot(gallery, "picture 169")).to_be_in_viewport()
    gallery.go_back()
    expect(shot(gallery, "picture 0")).to_be_in_viewport()


def test_filters_stand_in_the_address_and_survive(gallery: Page) -> None:
    gallery.get_by_role("combobox", name="Label").select_option("odd")
    expect(gallery).to_have_url(re.compile(r"\?label=odd$"))
    expect(shot(gallery, "picture 168")).to_have_count(0)
    expect(shot(gallery, "picture 169")).to_be_visible()
    gallery.reload()
    expect(gallery.get_by_role("combobox", name="Label")).to_have_value("odd")
    expect(shot(gallery, "picture 169")).to_be_visible()
    assert {int(title.split()[1]) % 2 for title in titles(gallery)} == {1}
    gallery.get_by_role("combobox", name="State").select_option("failed")
    expect(gallery.locator("#no-match")).to_be_visible()
    gallery.go_back()
    expect(shot(gallery, "picture 169")).to_be_visible()
    gallery.go_back()
    expect(shot(gallery, "picture 168")).to_be_visible()
    expect(gallery.locator("#clear")).to_be_hidden()


def test_days_are_those_of_the_person(gallery: Page) -> None:
    gallery.get_by_label("From this day on").fill("2020-01-01")
    expect(gallery).to_have_url(re.compile("from=2020-01-01"))
    expect(shot(gallery, "picture 169")).to_be_visible()
    gallery.get_by_label("Up to this day").fill("2020-01-02")
    expect(gallery.locator("#no-match")).to_be_visible()
    gallery.locator("#no-match").get_by_role("link", name="Clear filters").click()
    expect(shot(gallery, "picture 169")).to_be_visible()


def test_words_are_sought_as_they_are_written(gallery: Page) -> None:
    gallery.get_by_role("searchbox").press_sequentially("picture 77", delay=10)
    expect(gallery).to_have_url(re.compile(r"\?q=picture\+77$"))
    expect(cards(gallery)).to_have_count(1)
    gallery.reload()
    expect(gallery.get_by_role("searchbox")).to_have_value("picture 77")
    expect(shot(gallery, "picture 77")).to_be_visible()
    gallery.go_back()
    expect(shot(gallery, "picture 169")).to_be_visible()


def test_news_come_by_themselves_and_wait_while_one_looks_at_older_ones(fleet: Fleet, gallery: Page) -> None:
    made(fleet, 1_001)
    expect(cards(gallery).first.locator("h2")).to_have_text("picture 1001")
    scroll_to_the_end(gallery)
    made(fleet, 1_002)
    news = gallery.get_by_role("button", name="1 new")
    expect(news).to_be_visible()
    news.click()
    expect(cards(gallery).first.locator("h2")).to_have_text("picture 1002")
    expect(news).to_be_hidden()


def test_choosing_with_the_mouse(gallery: Page) -> None:
    bar = gallery.locator("#chosen")
    cards(gallery).nth(0).locator(".pick").click()
    cards(gallery).nth(3).locator(".open").click(modifiers=["Shift"])
    expect(bar).to_contain_text("4 chosen")
    cards(gallery).nth(1).locator(".open").click(modifiers=["ControlOrMeta"])
    expect(bar).to_contain_text("3 chosen")
    expect(cards(gallery).nth(1)).not_to_have_attribute("data-picked", "")
    bar.get_by_role("button", name="Choose none").click()
    expect(bar).to_be_hidden()


def test_choosing_with_keys(gallery: Page) -> None:
    bar = gallery.locator("#chosen")
    cards(gallery).nth(0).locator(".open").focus()
    gallery.keyboard.press("Space")
    gallery.keyboard.press("Shift+ArrowRight")
    gallery.keyboard.press("Shift+ArrowRight")
    expect(bar).to_contain_text("3 chosen")
    gallery.keyboard.press("Shift+ArrowLeft")
    expect(bar).to_contain_text("2 chosen")
    gallery.keyboard.press("ArrowDown")
    expect(cards(gallery).nth(1).locator(".open")).not_to_be_focused()
    gallery.keyboard.press("ControlOrMeta+a")
    expect(bar).to_contain_text(re.compile(r"\d\d+ chosen"))
    gallery.keyboard.press("Escape")
    expect(bar).to_be_hidden()
    gallery.keyboard.press("Home")
    gallery.keyboard.press("Enter")
    expect(gallery.get_by_role("dialog")).to_be_visible()


def test_many_are_deleted_once_a_person_is_sure(fleet: Fleet, gallery: Page) -> None:
    for number in (2_001, 2_002):
        made(fleet, number)
        expect(shot(gallery, f"picture {number}")).to_be_visible()
        shot(gallery, f"picture {number}").locator(".pick").click()
    bar = gallery.locator("#chosen")
    bar.get_by_role("button", name="Delete").click()
    expect(gallery.locator("#ask")).to_contain_text("Delete 2 jobs")
    gallery.keyboard.press("Escape")
    expect(shot(gallery, "picture 2002")).to_be_visible()
    bar.get_by_role("button", name="Delete").click()
    gallery.locator("#ask").get_by_role("button", name="Delete").click()
    expect(shot(gallery, "picture 2001")).to_have_count(0)
    expect(shot(gallery, "picture 2002")).to_have_count(0)
    expect(bar).to_be_hidden()


def test_many_are_downloaded_as_one_file(gallery: Page) -> None:
    cards(gallery).nth(0).locator(".pick").click()
    cards(gallery).nth(1).locator(".pick").click()
    with gallery.expect_download() as download:
        gallery.locator("#zip").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert len([name for name in names if name.endswith(".png")]) == 2


def test_what_was_submitted_as_one_is_one_card(fleet: Fleet, gallery: Page) -> None:
    painted(fleet, {"prompt": "four of a kind", "seed": 5}, count=4)
    card = shot(gallery, "four of a kind")
    expect(card).to_have_count(1)
    expect(card.locator("[data-part=many]")).to_have_text("4 pictures")
    expect(card.locator("img")).to_have_count(4)
    for image in card.locator("img").all():
        expect(image).to_have_js_property("naturalWidth", 512)
    card.locator(".open").click()
    expect(gallery.locator(".strip button")).to_have_count(4)
    expect(gallery.locator("[data-part=where]")).to_have_text("1 of 4")


def test_markup_is_only_text_wherever_it_is_shown(fleet: Fleet, gallery: Page) -> None:
    made(fleet, 3_001, title=MARKUP, labels=["<b>label</b>"])
    expect(cards(gallery).first.locator("h2")).to_have_text(MARKUP)
    cards(gallery).first.locator(".open").click()
    expect(gallery.locator("#viewer-title")).to_have_text(MARKUP)
    expect(gallery.locator("[data-part=identity]")).to_contain_text("<b>label</b>")
    gallery.keyboard.press("Escape")
    gallery.goto(f"{fleet.url}/gallery?label=%3Cb%3Elabel%3C/b%3E")
    expect(cards(gallery).first.locator("h2")).to_have_text(MARKUP)
    expect(gallery.get_by_role("combobox", name="Label")).to_have_value("<b>label</b>")
    assert gallery.locator("img[src=x], h2 b").count() == 0


def test_without_scripts_one_goes_on_by_a_link(open_page: OpenPage) -> None:
    page = open_page("/gallery?label=even", scripts=False)
    before = titles(page)
    assert {int(title.split()[1]) % 2 for title in before} == {0}
    page.get_by_role("link", name="More").click()
    assert not set(titles(page)) & set(before)
    expect(shot(page, "picture 0")).to_have_count(1)


def test_trouble_is_told_and_overcome(open_page: OpenPage) -> None:
    page = open_page("/gallery", faults=True)
    page.route("**/api/v1/jobs?*", lambda route: route.abort())
    page.get_by_role("combobox", name="Label").select_option("even")
    expect(page.locator("#trouble")).to_contain_text("The server did not answer")
    page.unroute("**/api/v1/jobs?*")
    page.locator("#trouble").get_by_role("button", name="Try again").click()
    expect(shot(page, "picture 168")).to_be_visible()
    expect(page.locator("#trouble")).to_be_hidden()


@pytest.mark.parametrize("width", [360, 3840])
def test_nothing_runs_out_of_the_page(open_page: OpenPage, width: int) -> None:
    page = open_page("/gallery", width=width)
    expect(cards(page).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_hinders_a_person(open_page: OpenPage, hindrances: Callable[[Page], list[str]]) -> None:
    page = open_page("/gallery", lang="zh-CN")
    expect(cards(page).first.locator("img")).to_have_js_property("complete", True)
    cards(page).nth(1).locator(".pick").click()
    expect(page.locator("#chosen")).to_be_visible()
    assert hindrances(page) == []
