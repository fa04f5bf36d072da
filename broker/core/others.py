"""Somebody else's work on a worker, as far as it shows: prompts in its ComfyUI's queue that are not ours, a card that
is busy with other things, runs that take too long. Pure.

ComfyUI's queue is first come, first served: prompts of others are a wait before what is sent after them, and make no
run longer. Whatever else uses the card does.
"""

from __future__ import annotations

from typing import Final

from broker.core.estimates import LONGEST_MS, left_ms
from broker.core.rules import Now
from broker.protocol.records import Phase, Stats
from broker.protocol.worker import Heartbeat

#: The share of a card's time from which it counts as busy, and for how many heartbeats: the first one after a job may
#: still tell of it.
BUSY: Final = 0.5
BUSY_BEATS: Final = 2
#: A run that takes so many times what it should is put down to somebody else's work, so many of them in a row at most.
SLOW: Final = 2.0
SLOWEST: Final = 20.0
SLOW_RUNS: Final = 10
FORGET_SLOW_MS: Final = 60_000
#: Attempts in these phases are in ComfyUI's queue.
QUEUED: Final = (Phase.STAGED, Phase.RUNNING)


class Others:
    def __init__(self) -> None:
        #: Prompts of others in the newest heartbeat, and in the two newest: one alone may count what has just ended.
        self.counted = 0
        self.prompts = 0
        #: Since when the first of these is believed to run.
        self._since_ms = 0
        #: Heartbeats in a row in which the card was busy though its ComfyUI had nothing to do.
        self._busy_beats = 0
        #: Runs in a row that took too long, by how much the last one did, and when that was.
        self._slow_runs = 0
        self._slowdown = 1.0
        self._slowed_ms = 0

    def seen(self, said: Heartbeat, now: Now) -> bool:
        """Answers whether that may change what is expected here: alone with an idle card nothing does, ever."""
        present, seemed = bool(self.prompts) or self._slowdown != 1.0, self._seems_busy
        stats, before = said.stats, self.counted
        self.counted = max(0, stats.comfy_queue - sum(held.phase in QUEUED for held in said.held))
        prompts = min(before, self.counted)
        if prompts < self.prompts or not self.prompts or any(held.phase is Phase.RUNNING for held in said.held):
            self._since_ms = now.mono_ms
        self.prompts = prompts
        self._busy_beats = self._busy_beats + 1 if _is_busy(stats) and not said.held and not self.counted else 0
        return present or bool(prompts) or self._seems_busy != seemed

    def wait_ms(self, prompts: int, usual_ms: int, now: Now) -> int:
        """How long so many of their prompts will still take, if each takes what is usual there: nobody knows more."""
        if not prompts:
            return 0
        return min((prompts - 1) * usual_ms + left_ms(usual_ms, now.mono_ms - self._since_ms), LONGEST_MS)

    def slowed(self, by: float, now: Now) -> bool:
        """A run took so many times what it should have; answers whether that is put down to somebody else's work on the
        card. When it happens again and again, it is how fast the card is now."""
        self._slow_runs = self._slow_runs + 1 if by >= SLOW else 0
        if not 0 < self._slow_runs < SLOW_RUNS:
            self._slowdown = 1.0
            return False
        self._slowdown, self._slowed_ms = min(by, SLOWEST), now.mono_ms
        return True

    def slowdown(self, now: Now) -> float:
        """By how much somebody else's work on the card seems to slow what runs there: the card is busy though its
        ComfyUI has nothing to do, or the last run took too long; that is forgotten by half every minute."""
        seen = SLOW if self._seems_busy else 1.0
        if self._slowdown == 1.0:
            return seen
        forgotten: float = 0.5 ** ((now.mono_ms - self._slowed_ms) / FORGET_SLOW_MS)
        return max(seen, 1.0 + (self._slowdown - 1.0) * forgotten)

    @property
    def _seems_busy(self) -> bool:
        return self._busy_beats >= BUSY_BEATS


def _is_busy(stats: Stats) -> bool:
    return stats.gpu_busy is not None and stats.gpu_busy >= BUSY
