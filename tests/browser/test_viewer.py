"""One job, large: magnified, stepped through, told, and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from scripts.fleet import Fleet
from tests.browser.conftest import PATIENCE_MS, OpenPage
from tests.browser.seeds import INSTANT, made, painted

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), workers=1, simulator=INSTANT) as running:
        yield running


@pytest.fixture(scope="module")
def jobs(fleet: Fleet) -> dict[str, Any]:
    """Oldest first: one picture; three pictures; two jobs of one submit."""
    single = painted(fleet, {"prompt": "a lone pier", "seed": 18_446_744_073_709_551_615})
    many = made(fleet, 7, pictures=3)
    together = painted(fleet, {"prompt": "a pair of boats", "seed": 1}, count=2)
    return {"single": single, "many": many, "together": together}


@pytest.fixture
def opened(open_page: OpenPage, jobs: dict[str, Any]) -> Callable[..., Locator]:
    """Opens a job's address on a page, and gives its dialog once all is there."""

    def at(name: str, path: str = "/gallery", **how: Any) -> Locator:
        page = open_page(f"{path}#job-{jobs[name]['id']}", **how)
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("[data-part=lines] li").first).to_be_visible()
        return dialog

    return at


def part(dialog: Locator, name: str) -> Locator:
    return dialog.locator(f"[data-part={name}]")


def scale(dialog: Locator) -> float:
    found = part(dialog, "picture").evaluate("one => new DOMMatrix(getComputedStyle(one).transform).a")
    return float(found)


@pytest.mark.parametrize("path", ["/", "/gallery"])
def test_the_address_opens_a_job_on_every_page_that_has_jobs(opened: Callable[..., Locator], path: str) -> None:
    dialog = opened("single", path)
    expect(dialog.get_by_role("heading", name="a lone pier")).to_be_visible()
    expect(part(dialog, "params")).to_contain_text("18446744073709551615")
    expect(part(dialog, "timings")).to_contain_text("Drawing")
    assert part(dialog, "timeline").locator("rect").count() >= 2
    expect(part(dialog, "lines")).to_contain_text("Done: every file is stored")
    dialog.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(dialog.page).not_to_have_url(re.compile("#"))


def test_arrows_go_through_all_pictures_and_on_to_the_neighbours(opened: Callable[..., Locator]) -> None:
    dialog = opened("together")
    press, where = dialog.page.keyboard.press, part(dialog, "where")
    expect(where).to_have_text("2 of 2")
    press("ArrowRight")
    expect(part(dialog, "title")).to_have_text("picture 7")
    for number in (1, 2, 3):
        expect(where).to_have_text(f"{number} of 3")
        press("ArrowRight")
    expect(part(dialog, "title")).to_have_text("a lone pier")
    expect(where).to_be_hidden()
    press("ArrowLeft")
    expect(where).to_have_text("3 of 3")
    dialog.locator(".strip button").nth(0).click()
    expect(where).to_have_text("1 of 3")
    press("ArrowLeft")
    expect(where).to_have_text("2 of 2")
    press("Escape")
    card = dialog.page.locator(".shot").filter(has_text="a pair of boats")
    expect(card.locator(".open")).to_be_focused()


def test_a_picture_is_magnified_by_keys_wheel_and_double_click(opened: Callable[..., Locator]) -> None:
    dialog = opened("single")
    page, frame, lens = dialog.page, part(dialog, "frame"), part(dialog, "percent_seen")
    expect(lens).to_have_text(re.compile(r"\d+ %"))
    page.keyboard.press("+")
    assert scale(dialog) == pytest.approx(1.25)
    page.keyboard.press("0")
    assert scale(dialog) == 1
    frame.hover()
    page.mouse.wheel(0, -300)
    expect(frame).to_have_attribute("data-close", "")
    before = part(dialog, "picture").bounding_box()
    page.mouse.down()
    page.mouse.move(300, 300, steps=3)
    page.mouse.up()
    assert part(dialog, "picture").bounding_box() != before
    page.keyboard.press("-")
    page.keyboard.press("0")
    frame.dblclick(position={"x": 200, "y": 200})
    expect(frame).to_have_attribute("data-close", "")
    frame.dblclick(position={"x": 200, "y": 200})
    expect(frame).not_to_have_attribute("data-close", "")
    dialog.get_by_role("button", name="Larger").click()
    assert scale(dialog) == pytest.approx(1.25)


def test_a_finger_swipes_to_the_next(opened: Callable[..., Locator]) -> None:
    dialog = opened("many", width=360)
    finger = """(one, [from, to]) => {
      const at = (type, x) => one.dispatchEvent(new PointerEvent(type, {
        pointerId: 1, pointerType: "touch", clientX: x, clientY: 200, bubbles: true, isPrimary: true }));
      one.setPointerCapture = () => {};
      at("pointerdown", from); at("pointermove", (from + to) / 2); at("pointerup", to);
    }"""
    part(dialog, "frame").evaluate(finger, [300, 100])
    expect(part(dialog, "where")).to_have_text("2 of 3")
    part(dialog, "frame").evaluate(finger, [100, 300])
    expect(part(dialog, "where")).to_have_text("1 of 3")


def test_prompt_seed_and_workflow_are_copied(opened: Callable[..., Locator]) -> None:
    dialog = opened("single")
    dialog.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name, text in (("prompt", "a lone pier"), ("seed", "18446744073709551615"), ("workflow", "KSampler")):
        dialog.get_by_role("button", name=f"Copy {name}").click()
        expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
        assert text in dialog.page.evaluate("navigator.clipboard.readText()")
        expect(dialog.get_by_role("button", name="Copied")).to_have_count(0)


def test_its_settings_are_used_again_in_the_studio(opened: Callable[..., Locator]) -> None:
    dialog = opened("single")
    page = dialog.page
    dialog.get_by_role("link", name="Use these settings").click()
    expect(page.locator("#f-prompt")).to_have_value("a lone pier")
    expect(page.locator("#f-seed")).to_have_value("18446744073709551615")


def test_a_failure_says_what_where_and_what_to_do(fleet: Fleet, open_page: OpenPage) -> None:
    page = open_page("/gallery")
    page.request.post(f"{fleet.comfyuis[0]}/simulator/mischief", data={"kind": "oom", "times": 9})
    failed = painted(fleet, {"prompt": "too large", "seed": 9})
    page.request.delete(f"{fleet.comfyuis[0]}/simulator/mischief")
    page.goto(f"{fleet.url}/gallery#job-{failed['id']}")
    dialog = page.get_by_role("dialog")
    expect(part(dialog, "problem")).to_have_text("The card ran out of memory")
    expect(part(dialog, "advice")).to_contain_text("smaller size")
    expect(part(dialog, "node")).to_have_text(re.compile(r"\w+, node \d+"))
    expect(part(dialog, "traceback")).to_be_hidden()
    dialog.get_by_text("Traceback").click()
    expect(part(dialog, "traceback")).to_be_visible()
    expect(part(dialog, "lines")).to_contain_text("Failed")
    dialog.get_by_role("button", name="Try again").click()
    expect(part(dialog, "badge")).to_have_text("done")


def test_a_job_that_is_deleted_makes_room_for_the_next(fleet: Fleet, jobs: dict[str, Any], open_page: OpenPage) -> None:
    assert jobs
    doomed = made(fleet, 4_001)
    page = open_page(f"/gallery#job-{doomed['id']}")
    dialog = page.locator("#viewer")
    dialog.get_by_role("button", name="Delete").click()
    page.locator("#ask").get_by_role("button", name="Delete").click()
    expect(part(dialog, "title")).not_to_have_text("picture 4001")
    expect(page.locator(".shot").filter(has_text="picture 4001")).to_have_count(0)


def test_a_job_that_is_not_there_is_told(open_page: OpenPage) -> None:
    page = open_page("/gallery#job-11111111-1111-4111-8111-111111111111", faults=True)
    expect(part(page.get_by_role("dialog"), "title")).to_have_text("This job cannot be shown")
    expect(part(page.get_by_role("dialog"), "note")).to_contain_text("It is not here")


@pytest.mark.parametrize(("width", "lang"), [(360, "en-US"), (1280, "zh-CN")])
def test_nothing_hinders_a_person(
    opened: Callable[..., Locator], hindrances: Callable[[Page], list[str]], width: int, lang: str
) -> None:
    dialog = opened("many", width=width, lang=lang)
    assert dialog.page.evaluate("document.documentElement.scrollWidth") <= width
    assert hindrances(dialog.page) == []
