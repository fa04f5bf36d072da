"""Makes messages from their own declarations: one fixed sample of each type, and a hypothesis strategy for any."""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from broker.protocol.ids import JOB_ID, SESSION_ID, SHA256, WORKER_NAME
from broker.protocol.schema import Blob, Many, Real, Text, Whole

FIXED_TEXT = {
    JOB_ID: "0a1b2c3d-0000-4000-8000-00000000002a",
    SESSION_ID: "0123456789abcdef0123456789abcdef",
    SHA256: "ab" * 32,
    WORKER_NAME: "gpu-7",
    None: "text é",
}


def sample(hint: Any) -> Any:
    """The fixed value of a type: the same in every run and release."""
    if get_origin(hint) is Annotated:
        base, rule = get_args(hint)
        match rule:
            case Text():
                return FIXED_TEXT[rule.pattern]
            case Whole():
                return min(max(3, rule.low), rule.high)
            case Real():
                return 0.25
            case Many():
                return (sample(get_args(base)[0]),)
            case Blob():
                return b"\x00\xffblob"
    if get_origin(hint) in (Union, types.UnionType):
        return sample(get_args(hint)[0])
    if hint is bool:
        return True
    if issubclass(hint, enum.StrEnum):
        return next(iter(hint))
    return hint(**{name: sample(field) for name, field in _fields(hint).items()})


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Any value the contract allows for a type, kept small."""
    if get_origin(hint) is Annotated:
        base, rule = get_args(hint)
        match rule:
            case Text():
                return _texts(rule)
            case Whole():
                return st.integers(rule.low, rule.high)
            case Real():
                return st.floats(rule.low, rule.high, allow_nan=False)
            case Many():
                return st.lists(strategy(get_args(base)[0]), max_size=3).map(tuple)
            case Blob():
                return st.binary(max_size=40)
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(st.none(), strategy(get_args(hint)[0]))
    if hint is bool:
        return st.booleans()
    if issubclass(hint, enum.StrEnum):
        return st.sampled_from(hint)
    return st.builds(hint, **{name: strategy(field) for name, field in _fields(hint).items()})


def _texts(rule: Text) -> st.SearchStrategy[str]:
    if rule.pattern is not None:
        return st.from_regex(rule.pattern, fullmatch=True).filter(lambda text: len(text) <= rule.most)
    return st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=min(rule.most, 30))


def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
