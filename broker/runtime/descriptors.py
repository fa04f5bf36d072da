"""How many files and connections this process may have open: as many as the system lets it have.

The usual soft limit of 1,024 is there for programs that use select(). Decides nothing else; the hard limit is the
operator's and stays.
"""

from __future__ import annotations

import resource
from typing import Final

MOST: Final = 65_536


def allow_many() -> None:
    """Each worker and each browser costs a descriptor or two; the soft limit would be the first to give way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
