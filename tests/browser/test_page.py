"""What a person does with the page, in a real browser against real processes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from scripts.fleet import Fleet
from tests.browser.cards import card, natural_size, part
from tests.browser.conftest import PATIENCE_MS, WATCH_LAYOUT, OpenPage

expect.set_options(timeout=PATIENCE_MS)

MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script></script>&amp;'


def ask(page: Page, prompt: str, *, steps: int = 20) -> None:
    """Send the form with this prompt. 60 steps last some 9 s: long enough to be met halfway on a busy machine."""
    page.locator("details.group").evaluate("one => { one.open = true; }")
    page.locator("#f-steps").fill(str(steps))
    page.locator("#f-prompt").fill(prompt)
    page.locator("#f-prompt").press("Control+Enter")


def changes_from(found: Locator, attribute: str, value: str | None) -> str:
    """The attribute, once it is another than `value`."""
    expect(found).not_to_have_attribute(attribute, value if value is not None else "")
    return found.get_attribute(attribute) or ""


def clear(fleet: Fleet) -> None:
    """Cancel whatever an earlier test left running."""
    for job in fleet.request("GET", "/api/v1/jobs?limit=200")["jobs"]:
        if job["can"]["cancel"]:
            fleet.request("DELETE", f"/api/v1/jobs/{job['id']}")
    for job in fleet.request("GET", "/api/v1/jobs?limit=200")["jobs"]:
        fleet.wait(job["id"])


@pytest.fixture(autouse=True)
def idle(fleet: Fleet) -> None:
    clear(fleet)


def test_from_a_prompt_to_a_picture(page: Page) -> None:
    ask(page, "a lighthouse at dusk", steps=60)
    live = card(page, "a lighthouse at dusk", "running")
    bar, picture = part(live, "bar"), part(live, "picture")
    expect(picture).to_have_attribute("src", re.compile("^blob:"))
    page.evaluate(WATCH_LAYOUT)
    first, value = picture.get_attribute("src"), bar.get_attribute("value")
    frame = live.locator(".frame").bounding_box()
    assert changes_from(picture, "src", first).startswith("blob:")
    assert float(changes_from(bar, "value", value)) > float(value or 0)
    expect(part(live, "status")).to_have_text(re.compile(r"KSampler · \d+ of 60"))
    expect(part(page.locator(".worker[data-state=busy]"), "title")).to_have_text("a lighthouse at dusk")
    assert live.locator(".frame").bounding_box() == frame
    assert page.evaluate("window.shifted") == 0

    done = card(page, "a lighthouse at dusk", "succeeded")
    expect(part(done, "picture")).to_have_attribute("src", re.compile("^/api/v1/files/"))
    assert natural_size(part(done, "picture")) == [1024, 1024]
    expect(part(done, "bar")).to_be_hidden()
    expect(page.locator("#said")).to_have_text("Done: a lighthouse at dusk")
    expect(page.locator("#counts")).to_contain_text("1 done")


def test_the_viewer_shows_the_picture_and_how_it_was_made(page: Page) -> None:
    page.locator("#f-size").locator("xpath=..").locator(".chip", has_text="832×1216").click()
    ask(page, "a pier in the fog", steps=2)
    card(page, "a pier in the fog", "succeeded").locator(".open").click()
    viewer = page.get_by_role("dialog")
    assert natural_size(part(viewer, "picture")) == [832, 1216]
    expect(part(viewer, "params")).to_contain_text("832x1216")
    expect(part(viewer, "status")).to_be_visible()
    seed = page.locator("#f-seed").input_value()
    assert seed.isdecimal()
    expect(part(viewer, "params")).to_contain_text(seed)
    expect(part(viewer, "timings")).to_contain_text("Drawing")
    with page.expect_download() as download:
        part(viewer, "download").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page).not_to_have_url(re.compile("#"))


def test_cancel_one_while_another_runs_and_try_it_again(page: Page) -> None:
    for prompt in ("first", "second"):
        ask(page, prompt, steps=60)
    expect(card(page, "second", "running")).to_be_visible()
    card(page, "first").get_by_role("button", name="Cancel").click()
    cancelled = card(page, "first", "cancelled")
    expect(cancelled).to_be_visible()
    expect(card(page, "second", "succeeded")).to_be_visible()
    cancelled.get_by_role("button", name="Try again").click()
    expect(part(card(page, "first", "succeeded"), "picture")).to_be_visible()


def test_a_waiting_job_stands_in_the_queue_and_can_be_cancelled_there(page: Page) -> None:
    for prompt in ("one", "two", "three", "four", "five"):
        ask(page, prompt, steps=40)
    row = page.locator("#queue .job", has=page.get_by_role("heading", name="five", exact=True))
    row.get_by_role("button", name="Cancel").click()
    expect(page.locator("#gallery").locator(card(page, "five", "cancelled"))).to_be_visible()
    expect(row).to_have_count(0)


def test_a_reload_in_the_middle_goes_on(page: Page) -> None:
    ask(page, "a long voyage", steps=60)
    expect(part(card(page, "a long voyage", "running"), "picture")).to_be_visible()
    page.reload()
    expect(part(card(page, "a long voyage", "running"), "picture")).to_have_attribute("src", re.compile("^blob:"))
    expect(part(card(page, "a long voyage", "succeeded"), "picture")).to_be_visible()


def test_without_scripts_the_page_still_tells(fleet: Fleet, open_page: OpenPage) -> None:
    params = {"prompt": "told without a script", "size": "512x512", "steps": 2}
    job = fleet.request("POST", "/api/v1/jobs", {"template": "text-to-image", "params": params})
    fleet.wait(job["id"])
    page = open_page(scripts=False)
    assert natural_size(part(card(page, "told without a script", "succeeded"), "picture")) == [512, 512]
    expect(page.locator(".worker")).to_have_count(2)
    expect(page.locator("#simulated")).to_be_visible()
    expect(page.locator("noscript")).to_be_visible()


def test_markup_in_a_prompt_is_only_text(page: Page) -> None:
    ask(page, MARKUP)
    job = page.locator(".job").filter(has_text="onerror").first
    expect(part(job, "title")).to_have_text(MARKUP)
    job.locator(".open").click()
    expect(page.get_by_role("dialog")).to_contain_text("alert(2)")
    page.reload()
    expect(part(page.locator(".job").filter(has_text="onerror").first, "title")).to_have_text(MARKUP)
    assert page.locator("img[src=x]").count() == 0


def test_a_failure_is_told_in_plain_words(fleet: Fleet, page: Page) -> None:
    for url in fleet.comfyuis:
        page.request.post(f"{url}/simulator/mischief", data={"kind": "oom", "times": 5})
    ask(page, "too large a picture")
    failed = card(page, "too large a picture", "failed")
    expect(part(failed, "problem")).to_have_text("The card ran out of memory")
    failed.locator(".open").click()
    viewer = page.get_by_role("dialog")
    expect(part(viewer, "node")).to_have_text(re.compile(r"\w+, node \d+"))
    expect(part(viewer, "traceback")).to_be_hidden()
    viewer.get_by_text("Traceback").click()
    expect(part(viewer, "traceback")).to_be_visible()
    for url in fleet.comfyuis:
        page.request.delete(f"{url}/simulator/mischief")
    viewer.get_by_role("button", name="Try again").click()
    expect(part(viewer, "badge")).to_have_text("done")


def test_the_form_says_what_is_wrong_before_it_is_sent(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#b-prompt")).to_have_text("Fill this in.")
    expect(page.locator("#f-prompt")).to_be_focused()
    page.locator("#f-prompt").fill("a pier")
    expect(page.locator("#b-prompt")).to_be_hidden()
    page.get_by_text("Advanced").click()
    page.locator("#f-steps").fill("151")
    page.get_by_text("Advanced").click()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#b-steps")).to_have_text("The most is 150.")
    expect(page.locator("#f-steps")).to_be_focused()
    expect(page.locator("#create-problem")).to_contain_text("Steps")
    page.get_by_text("Custom").click()
    page.get_by_role("textbox", name="Custom").fill("1000x1001")
    page.get_by_role("textbox", name="Custom").blur()
    expect(page.locator("#b-size")).to_have_text("This must be a multiple of 8.")
    assert "POST" not in asked


def test_a_kept_seed_draws_the_same_picture(page: Page) -> None:
    page.get_by_text("Advanced").click()
    page.locator("#f-seed").fill("12345")
    for _ in range(2):
        ask(page, "twins", steps=2)
    expect(card(page, "twins", "succeeded")).to_have_count(2)
    sources = part(card(page, "twins", "succeeded"), "picture").evaluate_all("all => all.map((one) => one.src)")
    assert len({source.partition("?")[0] for source in sources}) == 1


def test_keys_alone_are_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.locator("#f-prompt").focus()
    page.keyboard.type("by keys")
    page.keyboard.press("Control+Enter")
    expect(card(page, "by keys", "succeeded")).to_be_visible()
    page.get_by_role("link", name="All pictures").focus()
    page.keyboard.press("Tab")
    expect(card(page, "by keys").locator(".open")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(card(page, "by keys").locator(".open")).to_be_focused()


def test_a_chosen_theme_stays(open_page: OpenPage) -> None:
    page = open_page(theme="light")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("width", [360, 768, 1440, 3840])
def test_nothing_runs_out_of_the_page(open_page: OpenPage, width: int) -> None:
    page = open_page(width=width)
    ask(page, "a-very-long-name-without-a-single-break-" * 4)
    expect(page.locator(".job").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_truth_comes_back_after_the_web_server_does(fleet: Fleet, open_page: OpenPage) -> None:
    page = open_page(faults=True)
    ask(page, "outlives the web", steps=60)
    expect(part(card(page, "outlives the web", "running"), "picture")).to_be_visible()
    fleet.processes["web"].kill()
    expect(page.locator("#link")).to_have_text("reconnecting")
    expect(page.locator("#notice")).to_be_visible()
    fleet.start_web()
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#notice")).to_be_hidden()
    expect(part(card(page, "outlives the web", "succeeded"), "picture")).to_be_visible()


def test_a_fleet_out_of_reach_is_told_and_found_again(fleet: Fleet, open_page: OpenPage) -> None:
    page = open_page(faults=True)
    ask(page, "outlives the broker", steps=60)
    expect(part(card(page, "outlives the broker", "running"), "picture")).to_be_visible()
    fleet.processes["broker"].kill()
    expect(page.locator("#link")).to_have_text("fleet unreachable")
    ask(page, "sent into the void")
    expect(page.locator("#create-problem")).not_to_be_empty()
    fleet.start_broker()
    expect(page.locator("#link")).to_have_text("live")
    expect(part(card(page, "outlives the broker", "succeeded"), "picture")).to_be_visible()
