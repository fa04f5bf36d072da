"""The pages over HTTP: each is there, in the language that was asked for, and switching it leads back."""

from __future__ import annotations

import datetime
import gzip
import re
from urllib.parse import urlencode

import pytest

from tests.web.fake_broker import CREATED_MS, a_job
from tests.web.stage import Answer, Stage, staged
from web.pages.frame import PAGES

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def switch(stage: Stage, **fields: str) -> Answer:
    return stage.request("POST", "/language", urlencode(fields).encode(), FORM)


@pytest.mark.parametrize(("name", "path"), PAGES.items())
def test_every_page_of_the_navigation_is_there(stage: Stage, name: str, path: str) -> None:
    answer = stage.get(path)
    assert answer.status == 200
    text = answer.body.decode()
    assert f'<body data-page="{name}">' in text and f'<a href="{path}" aria-current="page">' in text


def test_a_page_speaks_the_language_that_was_asked_for(stage: Stage) -> None:
    assert 'lang="en"' in stage.get("/", **{"Accept-Language": "nonsense;;q=x"}).body.decode()
    assert 'lang="zh-CN"' in stage.get("/", **{"Accept-Language": "zh-TW, en;q=0.5"}).body.decode()
    assert 'lang="en"' in stage.get("/", Cookie="lang=en", **{"Accept-Language": "zh"}).body.decode()
    missing = stage.get("/nowhere", Accept="text/html", Cookie="lang=zh")
    assert missing.status == 404 and "这里什么也没有" in missing.body.decode()


def test_switching_the_language_is_remembered_and_leads_back(stage: Stage) -> None:
    answer = switch(stage, lang="zh", back="/gallery?q=a%20b#job-1")
    assert (answer.status, answer.headers["location"]) == (303, "/gallery?q=a%20b#job-1")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("lang=zh; Path=/; Max-Age=") and "SameSite=Lax" in cookie


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\r\nX: y"])
def test_it_never_leads_anywhere_else(stage: Stage, back: str) -> None:
    assert switch(stage, lang="en", back=back).headers["location"] == "/"


def test_a_language_there_is_not_and_a_broken_form_are_refused(stage: Stage) -> None:
    assert switch(stage, lang="xx").status == 422
    assert stage.request("POST", "/language", b"&".join(b"a=1" for _ in range(50)), FORM).status == 400
    assert stage.request("POST", "/language", b"lang=zh").status == 415


def test_scripts_come_packed_and_only_once(stage: Stage) -> None:
    plain, packed = stage.get("/static/shell.js"), stage.get("/static/shell.js", **{"Accept-Encoding": "br, gzip"})
    assert (plain.status, packed.status) == (200, 200)
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body and b"export function follow" in plain.body
    assert packed.headers["content-type"] == "text/javascript; charset=UTF-8"
    again = stage.get("/static/shell.js", **{"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    refused = stage.get("/static/shell.js", **{"Accept-Encoding": "gzip;q=0, identity"})
    assert refused.body == plain.body


@pytest.mark.parametrize("name", ["nothing.js", "package.json", "", "shell", "SHELL.JS", "a/b.js"])
def test_nothing_else_is_served(stage: Stage, name: str) -> None:
    assert stage.get(f"/static/{name}").status == 404


def gallery(stage: Stage, query: str = "") -> list[str]:
    """The jobs on the gallery's first paint."""
    text = stage.get(f"/gallery{query}").body.decode()
    return re.findall(r'href="#job-([0-9a-f-]{36})"', text)


def test_the_gallery_is_painted_with_what_its_address_asks_for(stage: Stage) -> None:
    old = stage.broker.put(a_job(labels=("x",))).job_id
    new = stage.broker.put(a_job(created_utc_ms=CREATED_MS + 5 * 86_400_000)).job_id
    day = datetime.datetime.fromtimestamp(CREATED_MS / 1_000).astimezone().date().isoformat()
    for query, expected in (
        ("", [new, old]),
        ("?label=x", [old]),
        (f"?to={day}", [old]),
        (f"?from={day}&to={day}", [old]),
        (f"?from={day}", [new, old]),
        ("?q=harbour&state=failed", []),
        ("?from=no-day&to=9999-12-31", [new, old]),
        ("?from=0001-01-01", [new, old]),
        ("?from=0202-03-01", [new, old]),
    ):
        assert gallery(stage, query) == expected, query
    refused = stage.get("/gallery?state=nonsense", **{"Accept": "text/html", "Accept-Language": "zh"})
    assert refused.status == 400 and "网址看不懂" in refused.body.decode()


def test_the_gallery_is_there_while_the_broker_is_silent() -> None:
    with staged(reply_ms=150) as stage:
        stage.broker.silent = True
        answer = stage.get("/gallery?label=x")
        assert answer.status == 200 and b'id="shots"' in answer.body
