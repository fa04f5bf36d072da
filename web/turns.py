"""How many may have something large in memory at the same time, and how many of them one owner: nobody keeps all others
out by being slow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from gevent.lock import BoundedSemaphore

from web.answers import Refusal
from web.viewer import Viewer

#: How long a request waits for its turn.
TURN_S: Final = 10.0


class Turns:
    def __init__(self, most: int, each: int) -> None:
        """each: of one owner who is no admin. Where there are no tokens everybody is one, and the same."""
        self._each = each
        self._all = BoundedSemaphore(most)
        #: Of owners who have a turn or wait for one, and how many requests of theirs that are.
        self._owners: dict[str, tuple[BoundedSemaphore, int]] = {}

    @contextlib.contextmanager
    def turn(self, viewer: Viewer) -> Iterator[None]:
        """Raises Refusal when there is none for too long."""
        with contextlib.nullcontext() if viewer.admin else self._own(viewer.owner), _acquired(self._all):
            yield

    @contextlib.contextmanager
    def _own(self, owner: str) -> Iterator[None]:
        mine, count = self._owners.get(owner, (BoundedSemaphore(self._each), 0))
        self._owners[owner] = mine, count + 1
        try:
            with _acquired(mine):
                yield
        finally:
            mine, count = self._owners[owner]
            if count > 1:
                self._owners[owner] = mine, count - 1
            else:
                del self._owners[owner]


@contextlib.contextmanager
def _acquired(places: BoundedSemaphore) -> Iterator[None]:
    if not places.acquire(timeout=TURN_S):
        raise Refusal(503, "busy", "too many large requests at once", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        places.release()
