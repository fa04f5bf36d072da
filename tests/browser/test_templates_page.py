"""From a workflow to a template to a picture, on the templates page; and what the page says of every template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from comfyui.library import BUILT_IN
from tests.browser.cards import card, natural_size, part
from tests.browser.conftest import PATIENCE_MS, OpenPage

expect.set_options(timeout=PATIENCE_MS)

WORKFLOW: Any = json.loads((BUILT_IN / "text-to-image" / "workflow.json").read_text("utf-8"))


def plan(page: Page, name: str) -> Locator:
    return page.locator(f"#plans [data-name={name}]")


def take(page: Page, workflow: Any) -> None:
    """Bring a workflow to the bench as a file."""
    page.get_by_role("button", name="Add a template").click()
    text = workflow if isinstance(workflow, str) else json.dumps(workflow)
    file: FilePayload = {"name": "mine.json", "mimeType": "application/json", "buffer": text.encode()}
    page.locator("#bench input[type=file]").set_input_files(file)


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page("/templates")


def test_the_list_says_what_each_template_needs_and_why_it_cannot_run(page: Page) -> None:
    expect(plan(page, "text-to-image").locator(".badge")).to_have_text("can run")
    expect(plan(page, "text-to-image")).to_contain_text("juggernautXL_v8Rundiffusion.safetensors")
    story = plan(page, "story")
    expect(story.locator(".badge")).to_have_text("cannot run")
    expect(part(story, "why")).to_contain_text("StoryDiffusion")
    expect(part(story, "facts")).to_contain_text("Custom nodes")


def test_from_a_workflow_to_a_template_to_a_picture_and_away_again(page: Page) -> None:
    take(page, WORKFLOW)
    expect(part(page.locator("#bench"), "taken")).to_have_text(re.compile(r"mine.json · nodes: \d+ · inputs .*: \d+"))
    page.get_by_role("textbox", name="Title").fill("Poster of a place")
    expect(page.get_by_role("textbox", name="Name, for addresses")).to_have_value("poster-of-a-place")
    picks = page.locator(".pick [data-part=label]")
    expect(picks.first).to_have_value("Prompt")
    page.locator("#bench .input", has_text="scheduler").get_by_role("checkbox").check()
    picks.first.fill("The place")
    page.get_by_role("button", name="Move Width up").press("Enter")
    expect(page.get_by_role("button", name="Move Width up")).to_be_focused()
    page.get_by_role("button", name="Leave Negative Prompt out").click()
    labels = page.locator("#bench [data-part=preview] .field > :is(label, legend)")
    expect(labels.first).to_have_text(re.compile("The place"))
    expect(labels.nth(1)).to_have_text(re.compile("Width"))
    expect(page.locator("#bench [data-part=preview] select")).to_have_value("normal")
    page.get_by_role("button", name="Save the template").click()
    expect(plan(page, "poster-of-a-place").locator(".badge")).to_have_text("can run")
    expect(plan(page, "poster-of-a-place").locator("[data-use]")).to_be_focused()

    plan(page, "poster-of-a-place").locator("[data-use]").click()
    expect(page.get_by_role("radio", name="Poster of a place")).to_be_checked()
    expect(page.locator("label[for=f-text]")).to_have_text(re.compile("The place"))
    page.locator("#f-text").fill("a harbour")
    page.locator("#f-width").fill("512")
    page.locator("#f-height").fill("768")
    page.get_by_role("button", name="Generate").click()
    done = card(page, "Poster of a place", "succeeded")
    assert natural_size(part(done, "picture")) == [512, 768]

    page.goto(re.sub("/[^/]*$", "/templates", page.url))
    plan(page, "poster-of-a-place").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(plan(page, "poster-of-a-place")).to_have_count(0)
    expect(plan(page, "text-to-image").get_by_role("button", name="Delete")).to_have_count(0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "This is not JSON"),
        ('{"nodes": [], "links": []}', "Workflow, then Export (API)"),
        ('{"a": 1}', "each entry must be a node with a class_type"),
        ('{"3": {"class_type": "KSampler", "inputs": {"model": ["4", 0]}}}', "model of node 3 is linked to a node"),
    ],
)
def test_what_is_no_workflow_is_told_in_place(open_page: OpenPage, text: str, words: str) -> None:
    page = open_page("/templates#add", faults=True)
    page.get_by_label("Or paste its text").fill(text)
    page.get_by_role("button", name="Read it").click()
    expect(page.locator("#source-problem")).to_contain_text(words)
    expect(page.get_by_label("Or paste its text")).to_have_attribute("aria-invalid", "true")


def test_nodes_that_no_worker_has_are_named_before_anything_is_saved(page: Page) -> None:
    strange = {**WORKFLOW, "3": {**WORKFLOW["3"], "class_type": "KSamplerOfMine"}}
    take(page, strange)
    expect(page.locator("#bench .making .trouble")).to_contain_text("no worker has KSamplerOfMine among its nodes")


def test_what_is_missing_is_marked_where_it_is_missing(page: Page) -> None:
    take(page, WORKFLOW)
    page.get_by_role("button", name="Save the template").click()
    expect(page.locator("#p-title")).to_have_text("Fill this in.")
    expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    page.get_by_role("textbox", name="Title").fill("Text to image")
    page.get_by_role("button", name="Save the template").click()
    expect(page.locator("#p-name")).to_have_text("There is a template called text-to-image already.")
    page.go_back()
    expect(page.locator("#bench")).to_be_hidden()
    expect(plan(page, "text-to-image")).to_be_visible()


def test_nothing_hinders_a_person(open_page: OpenPage, hindrances: Callable[[Page], list[str]]) -> None:
    page = open_page("/templates", width=1440)
    assert hindrances(page) == []
    take(page, WORKFLOW)
    expect(page.locator(".pick").first).to_be_visible()
    assert hindrances(page) == []
    phone = open_page("/templates#add", width=360, theme="dark", lang="zh-CN")
    phone.locator("#paste").fill(json.dumps(WORKFLOW))
    phone.locator("[data-do=read]").click()
    expect(phone.locator(".pick").first).to_be_visible()
    assert hindrances(phone) == []
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
