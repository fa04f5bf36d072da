"""Who is asking, and the one rule of who may see what: the API and the fan-out of events both ask here. Pure."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Viewer:
    """A signed-in person or program. An admin sees and touches everything."""

    owner: str
    admin: bool

    @property
    def scope(self) -> str | None:
        """Viewers of one scope see the same events. None: all of them."""
        return None if self.admin else self.owner


def may_see(scope: str | None, owner: str) -> bool:
    """Whether viewers of `scope` may see and touch what belongs to `owner`."""
    return scope is None or scope == owner
