"""When ComfyUI is to be started anew: its card's process is broken, it has long been away, or somebody asked. Pure.

The command that does it is the operator's; without one nothing is ever wanted here. Whatever the reason, two restarts
lie at least `patience_ms` apart: a ComfyUI that comes up slowly is not struck down again while it does.
"""

from __future__ import annotations

from typing import Final

#: How long prompts that are being taken back may keep a restart waiting.
GRACE_MS: Final = 10_000


class Mending:
    def __init__(self, *, possible: bool, patience_ms: int) -> None:
        """possible: there is a command. patience_ms: how long ComfyUI may be away before it is used."""
        self.possible = possible
        self._patience_ms = patience_ms
        #: Why ComfyUI is to be started anew, and when that was first wanted.
        self._why = ""
        self._wanted_ms = 0
        self._away_ms: int | None = None
        #: Not before; None: at once.
        self._next_ms: int | None = None

    @property
    def wanted(self) -> bool:
        return bool(self._why)

    def want(self, why: str, now_ms: int) -> None:
        if self.possible and not self._why:
            self._why, self._wanted_ms = why, now_ms

    def ask(self, why: str, now_ms: int) -> None:
        """A person asks: that waits for no patience."""
        self._next_ms = None
        self.want(why, now_ms)

    def away(self, now_ms: int) -> None:
        """ComfyUI does not answer."""
        if self._away_ms is None:
            self._away_ms = now_ms

    def back(self) -> None:
        self._away_ms = None

    def deadline_ms(self) -> int | None:
        """When `due` is worth asking."""
        if not self.possible:
            return None
        if self._why:
            first_ms = self._wanted_ms + GRACE_MS
        elif self._away_ms is not None:
            first_ms = self._away_ms + self._patience_ms
        else:
            return None
        return first_ms if self._next_ms is None else max(first_ms, self._next_ms)

    def due(self, now_ms: int, *, busy: bool) -> str:
        """Why ComfyUI is to be started anew now; empty: it is not. busy: it may still let go of prompts."""
        if self._away_ms is not None and now_ms >= self._away_ms + self._patience_ms and not self._why:
            self.want(f"it has not answered for {self._patience_ms / 1000:g} s", now_ms)
        waits = busy and now_ms < self._wanted_ms + GRACE_MS
        if not self._why or waits or (self._next_ms is not None and now_ms < self._next_ms):
            return ""
        why, self._why = self._why, ""
        self._next_ms = now_ms + self._patience_ms
        if self._away_ms is not None:
            self._away_ms = now_ms
        return why
