"""The studio beyond one picture: groups, what it remembers, settings taken from a job, notices, keys and languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from scripts.fleet import Fleet
from tests.browser.cards import card, part
from tests.browser.conftest import PATIENCE_MS, WATCH_LAYOUT, OpenPage
from web.pages.frame import PAGES

expect.set_options(timeout=PATIENCE_MS)

#: What stays as it is in every language: names, units, what people wrote themselves.
NAMES = re.compile(
    r"[\w./-]+\.(?:safetensors|pth)|\w+_\w+|juggernaut\w+|KSampler|text, watermark|a quiet pier|RTX 4090"
    r"|comfyfleet|ComfyUI|StoryDiffusion|SDXL|PNG|JPEG|WebP|JSON|English|GiB|Ctrl|API|JavaScript|CPU|RAM|scripts/\S+"
    r"|\w+(?:-\w+)+|story|comic|upscale|variations|local"
)
#: Everything a person reads or is read to, but for what may be chosen from a list: names of models and samplers.
READ_ALOUD = """() => {
  const said = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const parent = walk.currentNode.parentElement;
    if (!parent.closest("script, option, svg") && parent.checkVisibility()) said.push(walk.currentNode.textContent);
  }
  for (const one of document.body.querySelectorAll("*")) {
    for (const name of ["aria-label", "aria-description", "title", "placeholder", "alt"]) {
      if (one.hasAttribute(name) && one.checkVisibility()) said.push(one.getAttribute(name));
    }
  }
  return said.map((text) => text.trim()).filter(Boolean);
}"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=4, simulator=["--step-s", "0.1"]) as running:
        yield running


def ask(page: Page, prompt: str, *, count: int = 1, steps: int = 4) -> None:
    page.locator("details.group").evaluate("one => { one.open = true; }")
    page.locator("#f-steps").fill(str(steps))
    page.locator("#f-prompt").fill(prompt)
    page.locator("#count").fill(str(count))
    page.locator("#f-prompt").press("Control+Enter")


def group(page: Page, prompt: str, state: str = "") -> Locator:
    return card(page, prompt, state).and_(page.locator(".group"))


def jobs(fleet: Fleet, prompt: str) -> list[Any]:
    """What became of this prompt, with the values of its form, oldest first."""
    found = [job for job in fleet.request("GET", "/api/v1/jobs?limit=200")["jobs"] if job["title"] == prompt]
    return [fleet.request("GET", f"/api/v1/jobs/{job['id']}") for job in reversed(found)]


def test_a_group_of_eight_over_four_workers_is_one_card(fleet: Fleet, page: Page) -> None:
    ask(page, "eight boats", count=8, steps=60)
    live = group(page, "eight boats")
    tiles = part(live, "tiles").locator("li")
    expect(tiles).to_have_count(8)
    expect(tiles.nth(0).locator("img")).to_have_attribute("src", re.compile("^blob:"))
    page.evaluate(WATCH_LAYOUT)
    expect(part(live, "status")).to_contain_text("of 8 done")
    expect(page).to_have_title(re.compile(r"\d running · comfyfleet"))
    done = group(page, "eight boats", "succeeded")
    expect(part(done, "status")).to_have_text("8 of 8 done")
    expect(done.locator("img[src^='/api/v1/files/']")).to_have_count(8)
    assert page.evaluate("window.shifted") < 0.001, "at most a number that grew by a digit"
    expect(page).to_have_title("Studio · comfyfleet")
    made = sorted(jobs(fleet, "eight boats"), key=lambda job: job["group"]["index"])
    assert len({job["worker"] for job in made}) == 4
    assert len({output["sha256"] for job in made for output in job["outputs"]}) == 8
    page.reload()
    expect(group(page, "eight boats", "succeeded").locator(".tiles li")).to_have_count(8)
    tiles.nth(2).get_by_role("link").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_whole_group_is_cancelled_at_once(fleet: Fleet, page: Page) -> None:
    ask(page, "twelve boats", count=12, steps=150)
    group(page, "twelve boats").get_by_role("button", name="Cancel all").click()
    expect(group(page, "twelve boats", "cancelled")).to_be_visible()
    assert {job["state"] for job in jobs(fleet, "twelve boats")} == {"cancelled"}


def test_a_locked_seed_is_kept_and_an_open_one_is_drawn_anew(fleet: Fleet, page: Page) -> None:
    page.locator("details.group").evaluate("one => { one.open = true; }")
    for number, lock in enumerate((False, True, False), start=1):
        if number > 1:
            page.locator(".joined .button").click()
        expect(page.locator("[data-lock]")).to_be_checked(checked=lock)
        ask(page, "seeds")
        expect(card(page, "seeds", "succeeded")).to_have_count(number)
    first, second, third = (job["form"]["params"]["seed"] for job in jobs(fleet, "seeds"))
    assert first == second != third


def test_what_was_typed_outlives_a_reload_until_it_is_reset(page: Page) -> None:
    page.locator("#f-prompt").fill("a quiet pier")
    page.locator(".chip", has_text="1216×832").click()
    page.get_by_role("button", name="One more").click()
    page.reload()
    expect(page.locator("#f-prompt")).to_have_value("a quiet pier")
    expect(page.locator("#count")).to_have_value("2")
    expect(page.locator(".chip", has_text="1216×832").locator("input")).to_be_checked()
    page.get_by_role("button", name="Reset").click()
    page.reload()
    expect(page.locator("#f-prompt")).to_have_value("")
    expect(page.locator("#count")).to_have_value("1")
    expect(page.locator(".chip", has_text="1024×1024").locator("input")).to_be_checked()


def test_the_settings_of_a_job_fill_the_form_from_its_card_and_from_an_address(
    fleet: Fleet, page: Page, open_page: OpenPage
) -> None:
    params = {"prompt": "a red buoy", "size": "640x1536", "steps": 3, "seed": 77}
    job = fleet.request("POST", "/api/v1/jobs", {"template": "text-to-image", "params": params})
    card(page, "a red buoy").get_by_role("button", name="Use again").click()
    other = open_page(f"/?from={job['id']}")
    for one in (page, other):
        expect(one.locator("#f-prompt")).to_have_value("a red buoy")
        expect(one.locator(".chip", has_text="640×1536").locator("input")).to_be_checked()
        expect(one.locator("#f-seed")).to_have_value("77")
        expect(one.locator("[data-lock]")).to_be_checked()
        expect(one.locator("#f-steps")).to_have_value("3")
    expect(other).to_have_url(fleet.url + "/")


def test_a_job_that_came_without_a_form_says_so(fleet: Fleet, open_page: OpenPage) -> None:
    workflow = fleet.request("GET", f"/api/v1/jobs/{_made(fleet)}")["workflow"]
    job = fleet.request("POST", "/api/v1/jobs", {"workflow": workflow, "title": "by hand"})
    page = open_page(f"/?from={job['id']}")
    expect(page.locator("#toast")).to_contain_text("sent as a workflow")
    expect(card(page, "by hand").get_by_role("button", name="Use again")).to_be_hidden()


def _made(fleet: Fleet) -> str:
    params = {"prompt": "a model to go by", "steps": 2}
    made = fleet.request("POST", "/api/v1/jobs", {"template": "text-to-image", "params": params})
    return str(fleet.wait(made["id"])["id"])


def test_a_notice_tells_of_what_is_done_while_nobody_looks(open_page: OpenPage) -> None:
    page = open_page()
    page.context.grant_permissions(["notifications"])
    page.add_init_script("""window.told = [];
      const Real = Notification;
      window.Notification = class {
        static get permission() { return Real.permission; }
        static requestPermission() { return Real.requestPermission(); }
        constructor(title, { body }) { window.told.push(`${title}: ${body}`); }
      };""")
    page.reload()
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notifying you")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.get_by_role("button", name="Notifying you")).to_be_visible()
    page.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })")
    ask(page, "three boats", count=3)
    expect(group(page, "three boats", "succeeded")).to_be_visible()
    assert page.evaluate("window.told") == ["Done: three boats"]


def test_every_control_is_reached_by_tab_and_shows_where_the_focus_is(page: Page) -> None:
    page.locator("details.group").evaluate("one => { one.open = true; }")
    wanted = set(page.locator("#create").locator("input:not([type=radio]), select, textarea, button").evaluate_all(
        "all => all.filter((one) => one.checkVisibility()).map((one) => one.id || one.dataset.step || one.className)"
    ))  # fmt: skip
    reached, unseen = set(), []
    page.locator(".brand").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
          const one = document.activeElement;
          const shown = one.closest(".chip, .joined .button") ?? one;
          return [one.id || one.dataset.step || one.className, getComputedStyle(shown).outlineStyle];
        }""")
        reached.add(name)
        if outline == "none":
            unseen.append(name)
        if name == "main":
            break
    assert wanted <= reached and unseen == []
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_value("2")


def test_the_language_is_switched_by_a_button_and_what_was_typed_stays(page: Page) -> None:
    page.locator("#f-prompt").fill("a quiet pier")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_label("提示词", exact=True)).to_have_value("a quiet pier")
    expect(page.locator("#link")).to_have_text("已连接")
    page.locator("#f-prompt").press("Control+Enter")
    done = card(page, "a quiet pier", "succeeded")
    expect(part(done, "status")).to_have_text(re.compile(r"由 worker-\d 完成"))
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(part(done, "status")).to_have_text(re.compile(r"Made by worker-\d"))


@pytest.mark.parametrize("path", PAGES.values(), ids=list(PAGES))
def test_no_english_is_left_on_the_chinese_pages(fleet: Fleet, open_page: OpenPage, path: str) -> None:
    for job in fleet.request("GET", "/api/v1/jobs?limit=200")["jobs"]:
        if not job["title"].startswith("a quiet pier"):
            fleet.wait(job["id"])
    page = open_page(path, lang="zh-CN")
    titles = {job["title"] for job in fleet.request("GET", "/api/v1/jobs?limit=200")["jobs"]}
    said = [text for text in page.evaluate(READ_ALOUD) if text not in titles]
    for title in sorted(titles, key=len, reverse=True):
        said = [text.replace(title, "") for text in said]
    assert [text for text in said if re.search(r"[A-Za-z]{2,}", NAMES.sub("", text))] == []
