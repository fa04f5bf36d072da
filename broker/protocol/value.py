"""Dataclasses whose values are made by the thousand each second: messages, records, what the core asks for. Pure.

`dataclass` and `replace` are those of the standard library to the type checker, which is what holds that no field of a
frozen value is set. At run time nothing checks it: dataclasses would pay for that with a call for each field of each
value, three times what making one costs otherwise (ADR 0064).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    import dataclasses
    import functools
    from operator import attrgetter

    def dataclass(*, frozen: bool = False, **options: bool):
        return dataclasses.dataclass(unsafe_hash=frozen, **options)

    def replace(value, **changes):
        """A copy with these fields changed."""
        names, fields = _fields(type(value))
        return type(value)(**dict(zip(names, fields(value), strict=True)) | changes)

    @functools.cache
    def _fields(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        # Of one name attrgetter would not make a tuple.
        return names, attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)


__all__ = ["dataclass", "replace"]
