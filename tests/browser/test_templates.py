"""Every template that plain ComfyUI can run, from its form to a picture; and what the page says of the others."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.cards import card, natural_size, part
from tests.browser.conftest import PATIENCE_MS, OpenPage
from tests.web.pictures import png_of_size

expect.set_options(timeout=PATIENCE_MS)


def picture(name: str = "boat.png", *, width: int = 128, height: int = 96) -> FilePayload:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (40, 90, 120)).save(data, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": data.getvalue()}


def pick(page: Page, title: str) -> None:
    page.get_by_role("radio", name=title, exact=True).check(force=True)
    expect(page.locator("#create")).to_be_visible()


def upload(page: Page, file: FilePayload) -> None:
    page.locator("#f-picture").set_input_files(file)
    expect(page.locator(".drop [data-part=note]")).to_have_text(re.compile("× "))


def carry(page: Page, event: str, target: str, file: FilePayload) -> None:
    """Bring the file to the element as a browser does: with a drop, or with a paste."""
    page.evaluate(
        """([event, target, name, type, text]) => {
          const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], name, { type }));
          const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
          const made = event === "paste" ? new ClipboardEvent(event, init) : new DragEvent(event, init);
          document.querySelector(target).dispatchEvent(made);
        }""",
        [event, target, file["name"], file["mimeType"], base64.b64encode(file["buffer"]).decode()],
    )


def test_several_pictures_of_one_text(page: Page) -> None:
    page.locator("#f-prompt").fill("a fleet of three")
    page.locator("#f-batch").fill("3")
    page.get_by_role("button", name="Generate").click()
    done = card(page, "a fleet of three", "succeeded")
    expect(part(done, "many")).to_have_text("3 pictures")


def test_image_to_image(page: Page) -> None:
    pick(page, "Image to image")
    upload(page, picture())
    assert natural_size(page.locator(".drop img")) == [128, 96]
    page.locator("#f-prompt").fill("the same boat in snow")
    page.get_by_role("button", name="Generate").click()
    done = card(page, "the same boat in snow", "succeeded")
    expect(part(done, "picture")).to_have_attribute("src", re.compile("^/api/v1/files/"))


def test_variations(page: Page) -> None:
    pick(page, "Variations")
    carry(page, "drop", ".drop", picture())
    expect(page.locator(".drop [data-part=note]")).to_have_text("boat.png · 128 × 96")
    page.locator("#f-batch").fill("2")
    page.locator("#f-prompt").fill("two boats")
    page.get_by_role("button", name="Generate").click()
    expect(part(card(page, "two boats", "succeeded"), "many")).to_have_text("2 pictures")


def test_upscale(page: Page) -> None:
    pick(page, "Upscale")
    carry(page, "paste", "body", picture())
    expect(page.locator(".drop [data-part=note]")).to_have_text("boat.png · 128 × 96")
    page.get_by_role("button", name="Generate").click()
    assert natural_size(part(card(page, "Upscale", "succeeded"), "picture")) == [512, 384]


def test_a_picture_that_will_not_do_is_refused_in_words(open_page: OpenPage) -> None:
    page = open_page(faults=True)
    pick(page, "Upscale")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#b-picture")).to_have_text("Choose a picture.")
    page.locator("#f-picture").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"})
    expect(page.locator("#b-picture")).to_have_text("notes.txt is no PNG, JPEG or WebP picture.")
    page.locator("#f-picture").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"notes"})
    expect(page.locator("#b-picture")).to_have_text(re.compile("not taken: This is no PNG, JPEG or WebP picture"))
    page.locator("#f-picture").set_input_files(
        {"name": "bomb.png", "mimeType": "image/png", "buffer": png_of_size(50_000, 50_000)}
    )
    expect(page.locator("#b-picture")).to_have_text(re.compile("too large: the picture has 50000 x 50000 pixels"))
    upload(page, picture())
    expect(page.locator("#b-picture")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\u202egnp." + "x" * 192 + ".png", "gnp." + "x" * 28 + "…xxxxxxxx.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
    ],
    ids=["long and from right to left", "markup"],
)
def test_the_name_of_a_picture_is_only_text(page: Page, name: str, shown: str) -> None:
    pick(page, "Upscale")
    upload(page, picture(name))
    expect(page.locator(".drop [data-part=note]")).to_have_text(f"{shown} · 128 × 96")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("title", ["Story", "Comic page"])
def test_a_template_that_no_worker_can_run_says_why(page: Page, title: str) -> None:
    pick(page, title)
    expect(page.locator("#create-problem")).to_have_text(
        re.compile("no worker has .*StoryDiffusion_.* among its nodes")
    )
    expect(page.get_by_role("button", name="Generate")).to_be_hidden()
    pick(page, "Text to image")
    expect(page.get_by_role("button", name="Generate")).to_be_visible()


def test_the_picked_template_and_what_was_typed_stay(page: Page) -> None:
    page.locator("#f-prompt").fill("kept words")
    page.get_by_role("radio", name="Text to image").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#create")).not_to_have_attribute("data-template", "text-to-image")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#f-prompt")).to_have_value("kept words")
    pick(page, "Upscale")
    page.reload()
    expect(page.get_by_role("radio", name="Upscale")).to_be_checked()
    expect(page.locator("#f-picture")).to_be_attached()
