"""The languages: alike in what they say, and chosen whatever a browser sends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import comfyui
from web.words import ENGLISH, LANGUAGES, chosen

TEMPLATES = Path(comfyui.__path__[0]) / "templates"
OTHERS = [lang for lang in LANGUAGES if lang != ENGLISH.lang]
#: Sentences without a word in them, or with names only: the same in every language.
NAMES_ONLY = re.compile(
    r"comfyfleet|scripts/start_worker --comfyui http://127.0.0.1:8188 --name studio-1|GiB|°C"
    r"|\{\w+\}|[^A-Za-z]"
)


def places(sentence: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", sentence))


@pytest.mark.parametrize("lang", OTHERS)
def test_every_language_says_the_same_things(lang: str) -> None:
    other = LANGUAGES[lang].sentences
    assert list(other) == list(ENGLISH.sentences)
    assert [key for key in other if places(other[key]) != places(ENGLISH.sentences[key])] == []


def test_nothing_in_chinese_was_left_in_english() -> None:
    chinese = LANGUAGES["zh"].sentences
    same = [key for key, text in chinese.items() if text == ENGLISH.sentences[key] and NAMES_ONLY.sub("", text)]
    assert same == []


@pytest.mark.parametrize("lang", OTHERS)
def test_every_text_of_our_templates_is_there_in_every_language(lang: str) -> None:
    wanted: set[str] = set()
    for path in sorted(TEMPLATES.glob("*/form.json")):
        form = json.loads(path.read_text("utf-8"))
        wanted |= {form["title"], form["description"]}
        wanted |= {field[key] for field in form["fields"] for key in ("label", "help", "group") if field.get(key)}
    assert LANGUAGES[lang].terms.keys() == wanted


def test_the_document_says_in_which_language_it_is() -> None:
    assert [words.say("app.lang") for words in LANGUAGES.values()] == ["en", "zh-CN"]


@pytest.mark.parametrize(
    ("cookies", "accept", "lang"),
    [
        ("", "", "en"),
        ("lang=zh", "en", "zh"),
        ("other=1; lang=en", "zh", "en"),
        ("lang=xx", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("xlang=zh", "", "en"),
        ("", "de-DE, zh;q=0.3, en;q=0.2", "zh"),
        ("", "en;q=0.5, ZH-Hans-CN", "zh"),
        ("", "zh;q=0, en", "en"),
        ("", "zh;q=0", "en"),
        ("", "zh;q=nonsense", "en"),
        ("", "*", "en"),
        ("lang", "fr", "en"),
    ],
)
def test_a_cookie_comes_before_what_the_browser_prefers(cookies: str, accept: str, lang: str) -> None:
    assert chosen(cookies, accept).lang == lang


@given(st.text(), st.text())
def test_whatever_is_sent_there_is_a_language(cookies: str, accept: str) -> None:
    assert chosen(cookies, accept) in LANGUAGES.values()


def test_a_refusal_is_explained_by_its_code_or_in_the_server_s_words() -> None:
    zh = LANGUAGES["zh"]
    assert zh.explain("too_large", "at most 5 bytes", {"most": 5}) == "太大了：at most 5 bytes"
    assert zh.explain("no_node", "no worker has node A", {"names": "A"}) == "没有机器装有节点 A"
    assert zh.explain("no_node", "of another version", {}) == "of another version"
    assert zh.explain("from_the_future", "as it is", {}) == "as it is"
    assert zh.explain("bad_count", "as it is", {"key": "count", "self": 1}) == "as it is"


def test_whatever_can_be_wrong_with_a_field_has_a_sentence() -> None:
    code = "\n".join((TEMPLATES.parent / name).read_text("utf-8") for name in ("values.py", "story.py"))
    problems = set(re.findall(r'problem="([a-z.]+)"', code))
    assert {"required", "story.alone"} <= problems
    for words in LANGUAGES.values():
        assert {f"check.{problem}" for problem in problems} <= words.sentences.keys()


def test_one_is_not_told_as_many() -> None:
    assert ENGLISH.say("fleet.others", count=1) == "1 more"
    assert "1 node" not in ENGLISH.say("templates.source.read.done", name="a.json", nodes=1, inputs=1)
