"""The sentences of the pages in every language they speak, and which language a person gets.

Pure, but for reading the files once. Whatever a cookie or a header holds, the answer is a language there is.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: The cookie that holds what a person picked; it outlives sessions.
COOKIE: Final = "lang"
#: What each language calls itself; the first is what everybody gets who asks for none of them.
NAMES: Final = {"en": "English", "zh": "中文"}

_VIEWS = Path(__file__).parent / "views"
#: One entry of Accept-Language: a language, whatever region, and how much it is wanted. Source: RFC 9110, 12.5.4.
_WANTED = re.compile(r"\s*(?P<lang>[A-Za-z]{1,8})(?:-[A-Za-z0-9-]{1,40})?\s*(?:;\s*q=(?P<q>[01](?:\.[0-9]{0,3})?)\s*)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """One language."""

    lang: str
    sentences: Mapping[str, str]
    #: What titles, labels and help of templates are called in it, by their English.
    terms: Mapping[str, str]

    def say(self, key: str, /, **values: object) -> str:
        """The sentence `key` with its {places} filled."""
        return self.sentences[key].format(**values)

    def term(self, text: str) -> str:
        """A text of a template; as it stands where it is in nobody's list, as those of an operator's own templates."""
        return self.terms.get(text, text)

    def explain(self, code: str, message: str, details: Mapping[str, object]) -> str:
        """A refusal for people: by its code where there is a sentence for it, else as the server put it."""
        try:
            return self.say(f"refused.{code}", **{**details, "message": message})
        except KeyError:
            return message


def _read(name: str) -> dict[str, str]:
    path = _VIEWS / name
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


LANGUAGES: Final = {lang: Words(lang, _read(f"{lang}.json"), _read(f"{lang}.terms.json")) for lang in NAMES}
ENGLISH: Final = LANGUAGES["en"]


def chosen(cookies: str, accept: str) -> Words:
    """The language of a request with these Cookie and Accept-Language headers."""
    for pair in cookies.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and value in LANGUAGES:
            return LANGUAGES[value]
    best, found = 0.0, ENGLISH
    for entry in accept.split(",")[:50]:
        wanted = _WANTED.fullmatch(entry)
        if wanted is None or wanted["lang"].lower() not in LANGUAGES:
            continue
        weight = float(wanted["q"]) if wanted["q"] is not None else 1.0
        if weight > best:
            best, found = weight, LANGUAGES[wanted["lang"].lower()]
    return found
