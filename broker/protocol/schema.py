"""Declares what a field may hold, and checks it: the types behind every message.

A message is a frozen dataclass whose hints are the Annotated types below; `converter` turns a hint into the pair
of functions that write it to and read it from msgpack's plain values, `record` a whole dataclass. Reading is total: any
value gives a checked one or a RemoteProtocolError that names the key. No I/O.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from broker.protocol.errors import RemoteProtocolError
from broker.protocol.value import fields_of


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A str of at most `most` characters; never with NUL or a lone surrogate (SQLite and UTF-8 refuse those)."""

    most: int
    pattern: re.Pattern[str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """An int in [low, high]; a bool is not an int here."""

    low: int
    high: int


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    """A finite float in [low, high]; an int is taken as a float."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Many:
    """A tuple of at most `most` items."""

    most: int


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Raw bytes carried as a frame of their own, at most `most` bytes; empty means none."""

    most: int


ToWire = Callable[[Any], Any]
FromWire = Callable[[Any, str], Any]
_Form = tuple[ToWire | None, FromWire]


def _bad(path: str, want: str, value: object) -> RemoteProtocolError:
    # A container's repr can be as deep or as long as the peer likes: name its type alone.
    plain = value is None or isinstance(value, (bool, int, float, str))
    shown = repr(value[:60] if isinstance(value, str) else value) if plain else f"a {type(value).__name__}"
    return RemoteProtocolError("INVALID", f"{path}: want {want}, got {shown}"[:400])


def _text(rule: Text) -> _Form:
    most, pattern = rule.most, rule.pattern

    def read(value: Any, path: str) -> str:
        if type(value) is not str or len(value) > most or "\x00" in value:
            raise _bad(path, f"text of at most {most} characters without NUL", value)
        return value

    if pattern is None:
        return None, read
    shape, matches = pattern.pattern, pattern.fullmatch

    def read_shaped(value: Any, path: str) -> str:
        if type(value) is not str or matches(value) is None or len(value) > most:
            raise _bad(path, f"text of at most {most} characters matching {shape}", value)
        return value

    return None, read_shaped


def _whole(rule: Whole) -> _Form:
    low, high = rule.low, rule.high

    def read(value: Any, path: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _bad(path, f"an integer from {low} to {high}", value)
        return value

    return None, read


def _real(rule: Real) -> _Form:
    low, high = rule.low, rule.high

    def read(value: Any, path: str) -> float:
        # What is no number (NaN) is in no range.
        if type(value) not in (int, float) or not low <= value <= high:
            raise _bad(path, f"a number from {low} to {high}", value)
        return float(value)

    return float, read


def _flag(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise _bad(path, "true or false", value)
    return value


def _choice(kind: type[enum.StrEnum]) -> _Form:
    members = {member.value: member for member in kind}

    def read(value: Any, path: str) -> enum.StrEnum:
        if type(value) is not str or value not in members:
            raise _bad(path, "one of " + ", ".join(members), value)
        return members[value]

    return None, read


def _many(rule: Many, item: Any) -> _Form:
    item_to, item_from = _form(item)

    def read(values: Any, path: str) -> tuple[Any, ...]:
        if type(values) is not list or len(values) > rule.most:
            raise _bad(path, f"a list of at most {rule.most}", values)
        return tuple([item_from(value, path) for value in values])

    return None if item_to is None else lambda values: [item_to(value) for value in values], read


def _maybe(inner: Any) -> _Form:
    inner_to, inner_from = _form(inner)
    return (
        None if inner_to is None else lambda value: None if value is None else inner_to(value),
        lambda value, path: None if value is None else inner_from(value, path),
    )


def _same(value: Any) -> Any:
    return value


def record(kind: type[Any]) -> tuple[Callable[[Any], dict[str, Any]], Callable[..., Any]]:
    """Functions for the header of a dataclass: from a value to a plain map, and from that, a path for errors, and the
    blobs, to a checked value. Fields annotated as Blob are not in the header: they travel as frames, and are the last.
    """
    hints = get_type_hints(kind, include_extras=True)
    every = [field.name for field in dataclasses.fields(kind)]
    forms = {name: _form(hints[name]) for name in every if blob_rule(hints[name]) is None}
    if [*forms] != every[: len(forms)]:
        raise TypeError(f"{kind.__name__}: blobs come after all other fields")
    names, held = forms.keys(), fields_of(tuple(forms))
    writers = [(name, to_wire) for name, (to_wire, _) in forms.items() if to_wire is not None]
    #: By path, of which there are as many as places where such a record may stand: no text is put together for each
    #: message.
    readers: dict[str, list[tuple[str, FromWire, str]]] = {}

    def write(value: Any) -> dict[str, Any]:
        plain = dict(zip(names, held(value), strict=True))
        for name, to_wire in writers:
            plain[name] = to_wire(plain[name])
        return plain

    def read(value: Any, path: str, *blobs: bytes) -> Any:
        if type(value) is not dict:
            raise _bad(path, "a map", value)
        if value.keys() != names:
            missing, extra = sorted(names - value.keys()), sorted(map(str, value.keys() - names))
            raise RemoteProtocolError("INVALID", f"{path}: missing keys {missing[:5]}, unknown keys {extra[:5]}"[:400])
        plan = readers.get(path)
        if plan is None:
            plan = readers[path] = [(name, from_wire, f"{path}.{name}") for name, (_, from_wire) in forms.items()]
        return kind(*[from_wire(value[name], place) for name, from_wire, place in plan], *blobs)

    return write, read


def blob_rule(hint: Any) -> Blob | None:
    """The Blob rule of a hint, or None when the field belongs in the header."""
    if get_origin(hint) is Annotated:
        rule = get_args(hint)[1]
        return rule if isinstance(rule, Blob) else None
    return None


def converter(hint: Any) -> tuple[ToWire, FromWire]:
    """The writer and the checking reader for one type hint. Raises TypeError for a hint the contract does not use."""
    to_wire, from_wire = _form(hint)
    return to_wire if to_wire is not None else _same, from_wire


def _form(hint: Any) -> _Form:
    """Likewise; no writer: msgpack and JSON take the value as it is."""
    if get_origin(hint) is Annotated:
        base, rule = get_args(hint)
        match rule:
            case Text():
                return _text(rule)
            case Whole():
                return _whole(rule)
            case Real():
                return _real(rule)
            case Many():
                return _many(rule, get_args(base)[0])
    if get_origin(hint) in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(inner) == 1:
            return _maybe(inner[0])
    if hint is bool:
        return None, _flag
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return _choice(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return record(hint)
    raise TypeError(f"the contract has no wire form for {hint!r}")


def unique_pairs(pairs: list[tuple[Any, Any]]) -> Mapping[str, Any]:
    """msgpack's object_pairs_hook: a repeated key is refused instead of silently winning."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RemoteProtocolError("INVALID", "a map repeats a key")
    return found
