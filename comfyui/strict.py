"""JSON from strangers, read strictly: what two programs could read differently, or not store at all, is refused.

Refused are duplicate keys, NaN and infinities, numbers beyond 64 bits, anything but UTF-8, NUL characters, halves of
surrogate pairs, and nesting deeper than a limit. Pure.
"""

import json
import math
from collections import Counter
from typing import Final, NoReturn

DEPTH: Final = 64


class StrictError(ValueError):
    """Not JSON we accept. The text follows the word "JSON:"; `path` leads to the value, as far as it is known."""

    def __init__(self, reason: str, path: tuple[str, ...] = ()):
        super().__init__(reason)
        self.path = path


def load(raw: bytes) -> object:
    """The value in `raw`. Its texts and its depth are not yet checked: `check` does that. Raises: StrictError."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        raise StrictError(f"not UTF-8 at byte {e.start}") from e
    if text.startswith("\ufeff"):
        raise StrictError("begins with a byte order mark; save it as UTF-8 without one")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
    except RecursionError as e:
        raise StrictError("nested too deeply") from e
    except json.JSONDecodeError as e:
        raise StrictError(f"{e.msg} at line {e.lineno} column {e.colno}") from e


def check(value: object, *, depth: int = DEPTH) -> None:
    """Refuses texts that cannot be stored or sent, and deep nesting. Raises: StrictError."""
    if isinstance(value, str) and (fault := _text_fault(value)) is not None:
        raise StrictError(fault)
    waiting: list[tuple[object, tuple[str, ...]]] = [(value, ())]
    while waiting:
        value, path = waiting.pop()
        if not isinstance(value, dict | list):
            continue
        if len(path) >= depth:
            raise StrictError(f"nested deeper than {depth} levels", path[:3])
        for key in value if isinstance(value, dict) else ():
            if (fault := _text_fault(key)) is not None:
                raise StrictError(fault, path)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, str):
                if (fault := _text_fault(item)) is not None:
                    raise StrictError(fault, (*path, str(key)))
            elif isinstance(item, dict | list):
                waiting.append((item, (*path, str(key))))


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as e:
            return f"holds half of a surrogate pair (character {e.start})"
    return None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise StrictError(f"the key {twice[:100]!a} stands twice in one object")
    return found


def _int(digits: str) -> int:
    # The length first: Python refuses to convert some thousands of digits, with an error of another kind.
    value = int(digits) if len(digits) <= 20 else 2**64
    if not -(2**63) <= value < 2**64:
        raise StrictError(f"the number {digits[:24]}{'…' if len(digits) > 24 else ''} does not fit in 64 bits")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise StrictError(f"the number {digits[:24]} is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise StrictError(f"{name} is not a number")
