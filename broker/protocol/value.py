"""Dataclasses whose values are made by the thousand each second: messages, records, what the core asks for. Pure.

`dataclass` and `replace` are those of the standard library to the type checker, which is what holds that no field of a
frozen value is set, and that fields are named where a value is made. At run time nothing checks either. Dataclasses
would pay for the one with a call for each field of each value, three times what making one costs otherwise (ADR 0064);
and fields that are given in their order, as by whoever reads messages or a million records, need not be looked up by
name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:

    def dataclass(*, frozen: bool = False, kw_only: bool = False, **options: bool):
        return dataclasses.dataclass(unsafe_hash=frozen, **options)

    def replace(value, **changes):
        """A copy with these fields changed."""
        names, fields = _all_of(type(value))
        return type(value)(*(dict(zip(names, fields(value), strict=True)) | changes).values())

    @functools.cache
    def _all_of(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
        return names, fields_of(names)


def fields_of(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function for these fields of a value, all at once."""
    if len(names) > 1:
        return attrgetter(*names)
    # For fewer attrgetter makes no tuple.
    return lambda value: tuple([getattr(value, name) for name in names])


__all__ = ["dataclass", "fields_of", "replace"]
