"""The two clocks, read together: one for deadlines, one for people.

The only module of broker, worker and web that decides which clock is which. Pure code takes a Now, never this module's
`now`: it names the type in annotations only.
"""

from __future__ import annotations

import time
from typing import NamedTuple


class Now(NamedTuple):
    #: For deadlines and durations: never jumps; means nothing in another process or after a reboot.
    monotonic_ms: int
    #: For records and screens: milliseconds since 1970, UTC; may jump either way.
    utc_ms: int


def now() -> Now:
    """Both clocks at this instant."""
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


def monotonic_ms() -> int:
    """The clock for deadlines alone, for loops that ask often."""
    return time.monotonic_ns() // 1_000_000
