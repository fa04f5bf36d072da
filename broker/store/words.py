"""What a person searches by: texts as words, alike in both stores. Pure.

A word is a run of letters and digits, folded; of scripts that put no spaces between words each character is one, so
that any piece of a Chinese text is found. Several words of one query must all be there, in any order.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

#: Words of a job that can be searched for, and characters of one word.
MOST_WORDS: Final = 500
WORD_CHARS: Final = 64
#: Words of a query. From so many letters on the beginning of a word will do.
QUERY_WORDS: Final = 16
PREFIX_CHARS: Final = 3
#: Thai to Khmer, kana, Han, Hangul: characters that are words of their own.
_ALONE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD: Final = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_IS_ALONE: Final = re.compile(rf"[{_ALONE}]")


class Phrase(NamedTuple):
    """Words that follow one another, the last perhaps cut short."""

    words: tuple[str, ...]
    cut: bool


def words_of(text: str) -> list[str]:
    """The words of a text, in their order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = (match[0][:WORD_CHARS] for match in _WORD.finditer(folded))
    return [word for word, _ in zip(found, range(MOST_WORDS), strict=False)]


def phrases(query: str) -> tuple[Phrase, ...]:
    """What a query asks for; empty for one without words, which asks for nothing."""
    pieces = [words_of(piece) for piece in query.split()[:QUERY_WORDS]]
    return tuple(Phrase(tuple(piece[:QUERY_WORDS]), _may_be_cut(piece[:QUERY_WORDS][-1])) for piece in pieces if piece)


def contains(words: list[str], phrase: Phrase) -> bool:
    """Whether a text of these words holds the phrase."""
    *whole, last = phrase.words
    size = len(phrase.words)
    return any(
        words[at : at + size - 1] == whole
        and (words[at + size - 1].startswith(last) if phrase.cut else words[at + size - 1] == last)
        for at in range(len(words) - size + 1)
    )


def match_of(query: str) -> str:
    """The query as FTS5 reads it. Words hold letters and digits alone, so nothing in them can be read otherwise."""
    return " AND ".join(f'"{" ".join(phrase.words)}"{" *" if phrase.cut else ""}' for phrase in phrases(query))


def _may_be_cut(word: str) -> bool:
    return len(word) >= PREFIX_CHARS and _IS_ALONE.match(word) is None
