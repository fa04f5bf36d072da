"""Declares what a field may hold, and checks it: the types behind every message.

A message is a frozen dataclass whose hints are the Annotated types below; `converter` turns a hint into the pair
of functions that write it to and read it from msgpack's plain values. Reading is total: any value gives a checked
one or a RemoteProtocolError that names the key. No I/O.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from broker.protocol.errors import RemoteProtocolError


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


def _bad(path: str, want: str, value: object) -> RemoteProtocolError:
    # A container's repr can be as deep or as long as the peer likes: name its type alone.
    plain = value is None or isinstance(value, (bool, int, float, str))
    shown = repr(value[:60] if isinstance(value, str) else value) if plain else f"a {type(value).__name__}"
    return RemoteProtocolError("INVALID", f"{path}: want {want}, got {shown}"[:400])


def _text(rule: Text) -> tuple[ToWire, FromWire]:
    def read(value: Any, path: str) -> str:
        if type(value) is not str or len(value) > rule.most or "\x00" in value:
            raise _bad(path, f"text of at most {rule.most} characters without NUL", value)
        if rule.pattern is not None and rule.pattern.fullmatch(value) is None:
            raise _bad(path, f"text matching {rule.pattern.pattern}", value)
        return value

    return _same, read


def _whole(rule: Whole) -> tuple[ToWire, FromWire]:
    def read(value: Any, path: str) -> int:
        if type(value) is not int or not rule.low <= value <= rule.high:
            raise _bad(path, f"an integer from {rule.low} to {rule.high}", value)
        return value

    return _same, read


def _real(rule: Real) -> tuple[ToWire, FromWire]:
    def read(value: Any, path: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not rule.low <= value <= rule.high:
            raise _bad(path, f"a number from {rule.low} to {rule.high}", value)
        return float(value)

    return float, read


def _flag(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise _bad(path, "true or false", value)
    return value


def _choice(kind: type[enum.StrEnum]) -> tuple[ToWire, FromWire]:
    members = {member.value: member for member in kind}

    def read(value: Any, path: str) -> enum.StrEnum:
        if type(value) is not str or value not in members:
            raise _bad(path, "one of " + ", ".join(members), value)
        return members[value]

    return str, read


def _many(rule: Many, item: Any) -> tuple[ToWire, FromWire]:
    item_to, item_from = converter(item)

    def write(values: Any) -> list[Any]:
        return [item_to(value) for value in values]

    def read(values: Any, path: str) -> tuple[Any, ...]:
        if type(values) is not list or len(values) > rule.most:
            raise _bad(path, f"a list of at most {rule.most}", values)
        return tuple([item_from(value, path) for value in values])

    return write, read


def _maybe(inner: Any) -> tuple[ToWire, FromWire]:
    inner_to, inner_from = converter(inner)
    return (
        lambda value: None if value is None else inner_to(value),
        lambda value, path: None if value is None else inner_from(value, path),
    )


def _same(value: Any) -> Any:
    return value


def record(kind: type[Any]) -> tuple[Callable[[Any], dict[str, Any]], Callable[[Any, str], dict[str, Any]]]:
    """Functions for the header fields of a dataclass: to a plain map, and from one to checked keyword arguments.

    Fields annotated as Blob are left out: they travel as frames.
    """
    hints = get_type_hints(kind, include_extras=True)
    plan = {
        field.name: converter(hints[field.name])
        for field in dataclasses.fields(kind)
        if blob_rule(hints[field.name]) is None
    }
    names = frozenset(plan)

    def write(value: Any) -> dict[str, Any]:
        return {name: to_wire(getattr(value, name)) for name, (to_wire, _) in plan.items()}

    def read(value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise _bad(path, "a map", value)
        if value.keys() != names:
            missing, extra = sorted(names - value.keys()), sorted(map(str, value.keys() - names))
            raise RemoteProtocolError("INVALID", f"{path}: missing keys {missing[:5]}, unknown keys {extra[:5]}"[:400])
        return {name: from_wire(value[name], f"{path}.{name}") for name, (_, from_wire) in plan.items()}

    return write, read


def _nested(kind: type[Any]) -> tuple[ToWire, FromWire]:
    write, read = record(kind)
    return write, lambda value, path: kind(**read(value, path))


def blob_rule(hint: Any) -> Blob | None:
    """The Blob rule of a hint, or None when the field belongs in the header."""
    if get_origin(hint) is Annotated:
        rule = get_args(hint)[1]
        return rule if isinstance(rule, Blob) else None
    return None


def converter(hint: Any) -> tuple[ToWire, FromWire]:
    """The writer and the checking reader for one type hint. Raises TypeError for a hint the contract does not use."""
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
        return _same, _flag
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return _choice(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _nested(hint)
    raise TypeError(f"the contract has no wire form for {hint!r}")


def unique_pairs(pairs: list[tuple[Any, Any]]) -> Mapping[str, Any]:
    """msgpack's object_pairs_hook: a repeated key is refused instead of silently winning."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RemoteProtocolError("INVALID", "a map repeats a key")
    return found
