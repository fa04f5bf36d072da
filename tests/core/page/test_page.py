"""The HTML of the first paint: whole, and inert whatever the data say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import web
from tests.core.page import records
from web.pages import fleet, form, frame, gallery, studio, templates
from web.viewer import Viewer
from web.words import ENGLISH, Words

WEB = Path(web.__path__[0])
LOCAL = Viewer("local", True)
FIELDS = (
    records.field("prompt", "longtext", min=1, max=100, help="What the picture shows."),
    records.field("size", "size", default="1024x1024", min=64, max=2048, step=8, choices=["1024x1024", "1344x768"]),
    records.field("steps", "integer", default=20, min=1, max=150, group="Advanced"),
    records.field("cfg", "number", default=7.5, min=0, max=30, step=0.5, group="Advanced"),
    records.field("sampler", "choice", default="euler", choices=["ddim", "euler"], group="Advanced"),
    records.field("checkpoint", "model", default="a.safetensors", group="Advanced"),
    records.field("seed", "seed", group="Advanced"),
    records.field("note", "text", max=9),
    records.field("picture", "image", max=200),
    records.field("hires", "switch", default=True),
    records.field("characters", "roles", min=1, max=2),
    records.field("panels", "panels", min=1, max=16),
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, {name: value if value is not None else "" for name, value in attrs}))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def with_attribute(self, name: str, value: str | None = None) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.all if name in attrs and value in (None, attrs[name])]

    def by_id(self, wanted: str) -> dict[str, str]:
        (found,) = self.with_attribute("id", wanted)
        return found


def index(snapshot: records.Json, templates: list[records.Json], viewer: Viewer, words: Words = ENGLISH) -> str:
    return studio.page(frame.framed(viewer, words, snapshot), snapshot, templates)


def shown(**changes: object) -> Elements:
    return Elements(index(records.snapshot(**changes), [records.template(*FIELDS)], LOCAL))


def test_the_first_paint_holds_jobs_and_workers() -> None:
    jobs = [records.succeeded(id="done"), records.running(id="live"), records.job(id="wait")]
    found = shown(jobs=jobs, workers=[records.worker(simulated=True)], stats=records.stats(running=1))
    assert [attrs["data-job"] for attrs in found.with_attribute("data-job")] == ["wait", "live", "done", ""]
    assert [attrs["data-worker"] for attrs in found.with_attribute("data-worker")] == ["studio-1", ""]
    assert "hidden" not in found.by_id("simulated")
    assert "hidden" in found.by_id("no-pictures") and "hidden" in found.by_id("no-workers")
    assert any(attrs.get("src") == records.output()["url"] for attrs in found.with_attribute("data-part", "picture"))


def test_a_long_list_is_painted_as_far_as_a_screen_goes_and_embedded_whole() -> None:
    jobs = [records.job(id=f"job-{n}") for n in range(studio.PAINTED + 5)]
    found = shown(jobs=jobs)
    assert len(found.with_attribute("data-job")) == studio.PAINTED + 1
    assert len(json.loads(found.scripts[0])["snapshot"]["jobs"]) == studio.PAINTED + 5


def test_an_empty_fleet_says_what_to_do() -> None:
    found = shown()
    assert "hidden" not in found.by_id("no-pictures") and "hidden" not in found.by_id("no-workers")
    assert "hidden" in found.by_id("simulated")
    assert "scripts/start_worker" in index(records.snapshot(), [], LOCAL)


def test_a_fleet_out_of_reach_is_told_before_any_script_runs() -> None:
    found = shown(connected=False)
    assert found.by_id("link")["data-link"] == "unreachable"
    assert "hidden" not in found.by_id("notice")


def test_a_paused_queue_is_told() -> None:
    text = index(records.snapshot(stats=records.stats(paused=True)), [], LOCAL)
    assert ENGLISH.say("fleet.paused") in text


def test_a_full_disk_is_told_before_anything_else() -> None:
    text = index(records.snapshot(stats=records.stats(paused=True, disk_full=True)), [], LOCAL)
    assert ENGLISH.say("fleet.disk_full") in text and f">{ENGLISH.say('fleet.paused')}<" not in text


def test_each_kind_of_field_has_its_control() -> None:
    found = shown()
    steps, cfg = found.by_id("f-steps"), found.by_id("f-cfg")
    assert (steps["type"], steps["min"], steps["max"], steps["step"], steps["value"]) == (
        "number",
        "1",
        "150",
        "1",
        "20",
    )
    assert (cfg["step"], cfg["value"]) == ("0.5", "7.5")
    sizes = [attrs["value"] for attrs in found.with_attribute("name", "size")]
    assert sizes == ["1024x1024", "1344x768", ""]
    assert [attrs["value"] for attrs in found.with_attribute("selected")] == ["euler"]
    assert found.by_id("f-checkpoint")["value"] == "a.safetensors"
    assert len(found.with_attribute("data-lock")) == 1
    assert ("textarea", "f-prompt") in [(tag, attrs.get("id")) for tag, attrs in found.all]
    assert found.by_id("f-note")["type"] == "text"
    assert found.by_id("f-picture")["type"] == "file"
    assert (found.by_id("f-hires")["type"], "checked" in found.by_id("f-hires")) == ("checkbox", True)
    assert len(found.with_attribute("data-rows")) == len(found.with_attribute("data-add")) == 2
    assert len(found.with_attribute("data-part", "who")) == 1


def test_every_control_is_labelled_and_described_by_what_is_there() -> None:
    found = shown(jobs=[records.failed()], workers=[records.worker()])
    ids = {attrs["id"] for _, attrs in found.all if "id" in attrs}
    for attrs in found.with_attribute("aria-describedby") + found.with_attribute("aria-labelledby"):
        named = (attrs.get("aria-describedby", "") + " " + attrs.get("aria-labelledby", "")).split()
        assert set(named) <= ids
    labelled = {attrs["for"] for tag, attrs in found.all if tag == "label" and "for" in attrs}
    controls = [attrs for tag, attrs in found.all if tag in ("input", "select", "textarea") and "id" in attrs]
    assert all(attrs["id"] in labelled or attrs.get("aria-label") for attrs in controls)
    assert max(Counter(attrs["id"] for _, attrs in found.all if "id" in attrs).values()) == 1


def test_a_template_that_cannot_run_says_why_beside_its_button() -> None:
    barred = records.template(*FIELDS, runnable=False, why_not="no worker has node Refiner")
    text = index(records.snapshot(), [barred], LOCAL)
    assert "no worker has node Refiner" in text
    assert "hidden" in next(attrs for attrs in Elements(text).with_attribute("class", "go"))


def test_the_home_template_is_offered_wherever_it_stands() -> None:
    templates = [records.template(name="comic"), records.template(*FIELDS)]
    found = Elements(index(records.snapshot(), templates, LOCAL))
    assert [attrs["data-template"] for attrs in found.with_attribute("id", "create")] == [studio.HOME_TEMPLATE, "comic"]
    assert [attrs["value"] for attrs in found.with_attribute("name", "template")] == [studio.HOME_TEMPLATE, "comic"]
    assert [attrs["data-form"] for attrs in found.with_attribute("data-form")] == ["comic"]
    assert ["checked" in attrs for attrs in found.with_attribute("name", "template")] == [True, False]


def test_only_a_signed_in_person_can_sign_out() -> None:
    assert "/logout" not in index(records.snapshot(), [], LOCAL)
    assert "/logout" in index(records.snapshot(), [], Viewer("ann", False))


def gallery_page(
    around: frame.Frame, jobs: list[records.Json], filters: Mapping[str, str], text: str = "", *, after: str = ""
) -> str:
    offers = {"templates": [text], "labels": [text]}
    return gallery.page(around, {"jobs": jobs, "next": text}, filters, offers, after)


def pages(text: str, words: Words = ENGLISH) -> Mapping[str, Elements]:
    """Every page with `text` wherever data can stand."""
    fields = [{**field, "help": text, "label": text} for field in FIELDS]
    template = records.template(*fields, title=text, why_not=text, runnable=False)
    error = {**records.failed()["error"], "message": text, "node_type": text, "node_id": text, "traceback": text}
    jobs = [
        records.job(id="q", title=text),
        records.failed(id="f", title=text, error=error, worker=text),
        records.succeeded(id="s", title=text, outputs=[records.output(url=text, name=text)]),
        records.running(id="r", title=text, progress={**records.running()["progress"], "node_type": text}),
    ]
    held = [{"job_id": "r", "attempt": 1, "phase": "running"}]
    gpu = {**records.worker()["gpu"], "name": text}
    told = {"labels": [text], "resident": [text], "breaker": {"state": "open", "why": text, "since_ms": 0}}
    workers = [records.worker(name=text, gpu=gpu, held=held, version=text, **told)]
    viewer, snapshot = Viewer(text, False), records.snapshot(jobs=jobs, workers=workers)
    around = frame.framed(viewer, words, snapshot)
    return {
        "studio": Elements(studio.page(around, snapshot, [template])),
        "gallery": Elements(gallery_page(around, jobs, dict.fromkeys(gallery.FILTERS, text), text)),
        "fleet": Elements(fleet.page(around, snapshot)),
        "templates": Elements(templates.page(around, [template], workers=True)),
        "login": Elements(frame.login(text, words)),
        "problem": Elements(frame.problem(404, text, words)),
    }


NAMES = ("studio", "gallery", "fleet", "templates", "login", "problem")


def shape(found: Elements) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attrs)) for tag, attrs in found.all]


@pytest.mark.parametrize("name", NAMES)
def test_markup_in_data_makes_no_element_and_no_attribute(name: str) -> None:
    assert shape(pages(records.MARKUP)[name]) == shape(pages("a lighthouse")[name])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_on_a_page_needs_an_inline_script_or_style(name: str) -> None:
    found = pages(records.MARKUP)[name]
    assert not [attrs for _, attrs in found.all for key in attrs if key == "style" or key.startswith("on")]
    assert not [tag for tag, _ in found.all if tag == "style"]
    inline = [attrs for tag, attrs in found.all if tag == "script" and "src" not in attrs]
    assert [attrs["type"] for attrs in inline] == (["application/json"] if name in frame.PAGES else [])
    assert all(word in frame.POLICY for word in ("default-src 'none'", "script-src 'self'", "style-src 'self'"))


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=30)))
def test_embedded_data_come_back_and_cannot_end_their_block(data: dict[str, str]) -> None:
    text = frame.embed(data)
    assert json.loads(text) == data
    assert not set("<>&") & set(text)


def shown_gallery(jobs: list[records.Json], filters: Mapping[str, str], text: str = "", **more: str) -> Elements:
    return Elements(gallery_page(frame.framed(LOCAL, ENGLISH, records.snapshot()), jobs, filters, text, **more))


def test_the_gallery_is_painted_and_goes_on_without_a_script() -> None:
    group = records.submitted(records.succeeded(id="a"), records.succeeded(id="b"))[::-1]
    found = shown_gallery([records.running(id="c"), *group], {"q": "a pier"}, "k2")
    assert [attrs["data-key"] for attrs in found.with_attribute("data-key")] == ["c", "group:g", ""]
    assert found.by_id("more")["href"] == "/gallery?q=a+pier&after=k2"
    assert found.with_attribute("name", "q")[0]["value"] == "a pier"
    assert json.loads(found.scripts[0])["page"]["next"] == "k2"
    assert "page" not in json.loads(shown_gallery(group, {}, after="k1").scripts[0])


def test_an_empty_gallery_says_whether_anything_was_sought() -> None:
    for filters, there in (({}, "no-shots"), ({"state": "failed"}, "no-match")):
        found = shown_gallery([], filters)
        assert ["hidden" not in found.by_id(name) for name in ("no-shots", "no-match")] == [
            there == name for name in ("no-shots", "no-match")
        ]
        assert ("hidden" in found.by_id("clear")) == (not filters)


def test_the_scripts_begin_with_the_snapshot_that_was_painted() -> None:
    snapshot = records.snapshot(jobs=[records.job(title=records.MARKUP)])
    (script,) = Elements(index(snapshot, [records.template(*FIELDS)], LOCAL)).scripts
    assert json.loads(script) == {
        "snapshot": snapshot,
        "templates": [records.template(*FIELDS)],
        "words": ENGLISH.sentences,
    }


def sources() -> str:
    files = [*WEB.glob("views/*.html"), *WEB.glob("static/*.js"), *WEB.glob("pages/*.py")]
    files += [WEB / name for name in ("app.py", "describe.py", "standing.py", "words.py")]
    return "\n".join(path.read_text("utf-8") for path in files)


def test_no_sentence_is_missing_and_none_is_left_over() -> None:
    text = sources()
    named = set(re.findall(r"""["'`]([a-z]+(?:\.[a-z_]+)+)["'`]""", text))
    named = {key for key in named if not key.endswith((".js", ".html", ".css", ".svg", ".json"))}
    families = {found for found in re.findall(r"""["'`]((?:[a-z]+\.)+)(?:\$?\{|["'`] \+)""", text)}
    assert named - ENGLISH.sentences.keys() == set()
    assert {key for key in ENGLISH.sentences if key not in named and not key.startswith(tuple(families))} == set()


def test_data_never_become_markup_in_the_browser() -> None:
    code = "\n".join(path.read_text("utf-8") for path in WEB.glob("static/*.js"))
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.style\b|setHTML"
    # dom.js hands numbers, and nothing but numbers, to the stylesheet.
    assert re.findall(banned, code.replace("element.style.setProperty(`--${name}`, Number(number))", "")) == []


def test_every_file_a_page_asks_for_is_there() -> None:
    found = pages("a lighthouse").values()
    asked = {
        value.removeprefix("/static/")
        for one in found
        for _, attrs in one.all
        for value in attrs.values()
        if value.startswith("/static/")
    }
    assert {"studio.js", "gallery.js", "fleet.js", "templates.js", "design.css", "mark.svg", "theme.js"} <= asked
    modules = re.findall(r'from "\./([\w.]+)"', "\n".join(p.read_text("utf-8") for p in WEB.glob("static/*.js")))
    assert {name for name in asked | set(modules) if not (WEB / "static" / name).is_file()} == set()


def test_the_bounds_of_a_number_are_told_to_the_last_digit() -> None:
    field = records.field("seed", "integer", min=0, max=2**31 - 1)
    assert (form.bounds(field), form.limits(field)) == ("0–2147483647", 'min="0" max="2147483647" step="1"')
    finer = records.field("cfg", "number", min=0.05, max=30.0, step=0.01)
    assert (form.bounds(finer), form.limits(finer)) == ("0.05–30", 'min="0.05" max="30" step="0.01"')
