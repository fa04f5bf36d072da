"""Where in a JSON text a value stands, so that an error can name the line. Pure.

Of a text that is no JSON, or nested too deeply, only the part before that is seen: nothing here raises.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from comfyui.strict import DEPTH

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line, from 1, of the value that `path` leads to, or of the closest thing around it that is there."""
    places: dict[tuple[str, ...], int] = {}
    for found, offset in _places(text):
        places.setdefault(found, offset)
    wanted = tuple(map(str, path))
    offset = next((places[wanted[:end]] for end in range(len(wanted), 0, -1) if wanted[:end] in places), 0)
    return text.count("\n", 0, offset) + 1


def line_of_second_key(text: str) -> int | None:
    """The line of the first key that stands a second time in its object."""
    seen = set()
    for found, offset in _places(text):
        if found in seen:
            return text.count("\n", 0, offset) + 1
        seen.add(found)
    return None


def _places(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """(path, offset) of every value within the outermost one; of a value with a key the key's offset."""
    with suppress(IndexError, ValueError):
        yield from _walk(text)


def _walk(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    path: list[str] = []  # for each open object or list the key or number of the value it is at
    is_list: list[bool] = []
    awaits_key = False
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "]}":
            path.pop()
            is_list.pop()
        elif mark == ",":
            awaits_key = not is_list[-1]
            path[-1] = path[-1] if awaits_key else str(int(path[-1]) + 1)
        elif awaits_key:
            path[-1], awaits_key = json.loads(mark), False
            yield tuple(path), token.start()
        elif mark != ":":
            if is_list and is_list[-1]:
                yield tuple(path), token.start()
            if mark in "[{":
                path.append("0" if mark == "[" else "")
                is_list.append(mark == "[")
                awaits_key = mark == "{"
                if len(path) > DEPTH:
                    return
