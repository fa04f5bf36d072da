"""When an attempt's prompt is looked for, and how long it is waited for. Pure.

ComfyUI is asked after silence, and again soon after a doubtful answer. Some nodes say nothing for minutes, so being
seen in the queue as running, or behind other prompts, counts as a sign of life; what never ends is caught by limits on
the whole run: one that the broker has learnt of such workflows, and one for all. For how long it may wait behind others
the broker knows, which may have it done elsewhere.
"""

from __future__ import annotations

from typing import Final

from broker.protocol.records import Failure, Limits, Reason
from worker.core.verdict import failure

#: A doubtful answer is checked again after this long.
AGAIN_MS: Final = 1_000
#: Looks in a row that find nothing, or find ComfyUI gone, before the prompt is given up.
ABSENT_LOOKS: Final = 2
GONE_LOOKS: Final = 4
#: How long an interrupt may take once a limit has passed, before the attempt ends without it.
GRACE_MS: Final = 10_000


def earliest(*times_ms: int | None) -> int | None:
    """The first of these times; None where there is none."""
    return min((at_ms for at_ms in times_ms if at_ms is not None), default=None)


class Patience:
    def __init__(self, limits: Limits, poll_ms: int, now_ms: int) -> None:
        self._limits = limits
        self._poll_ms = poll_ms
        #: When ComfyUI is to be asked; None while nothing has to be known.
        self.look_ms: int | None = None
        #: The last sign that something moves, and when ComfyUI began to run it.
        self._sign_ms = now_ms
        self._running_ms: int | None = None
        #: Looks in a row that did not find it.
        self._misses = 0
        #: A limit has passed: the attempt ends then, whether or not ComfyUI has let go of its prompt.
        self._grace_ms: int | None = None
        self._over = False

    def deadline_ms(self) -> int | None:
        """The next look or limit."""
        return earliest(self.look_ms, self._grace_ms, *self._limit_times())

    # ---- what was seen

    def sign(self, now_ms: int) -> None:
        """Something about it moves."""
        self._sign_ms = now_ms

    def heard(self, now_ms: int, *, tells: bool = True) -> None:
        """ComfyUI spoke of it by itself: no need to ask for a while, if that tells what is to be known."""
        self._sign_ms = now_ms
        if tells:
            self.look_ms = now_ms + self._poll_ms

    def found(self, now_ms: int) -> None:
        self._misses = 0
        self.look_ms = now_ms + self._poll_ms

    def running(self, now_ms: int) -> None:
        self._running_ms = now_ms

    def missed(self, now_ms: int) -> bool:
        """ComfyUI does not know it. Answers whether to believe that."""
        self._misses += 1
        self.look_ms = now_ms + AGAIN_MS
        return self._misses >= ABSENT_LOOKS

    def unanswered(self, now_ms: int, *, gone: bool) -> bool:
        """ComfyUI said nothing. Answers whether it is gone for good, with all its prompts."""
        self._misses = self._misses + 1 if gone else 0
        self.look_ms = now_ms + AGAIN_MS
        return self._misses >= GONE_LOOKS

    # ---- when to look

    def look_at(self, at_ms: int) -> None:
        self.look_ms = at_ms

    def look_due(self, now_ms: int) -> bool:
        """Whether to look now; the answer sets the next time."""
        due = self.look_ms is not None and now_ms >= self.look_ms
        if due:
            self.look_ms = None
        return due

    # ---- when to give up

    def start_anew(self) -> None:
        """It is sent once more."""
        self._misses = 0

    def rest(self) -> None:
        """The prompt is out of ComfyUI: nothing to look for and no limit."""
        self.look_ms = self._grace_ms = None
        self._over = True

    def exhausted(self, now_ms: int) -> bool:
        return self._grace_ms is not None and now_ms >= self._grace_ms

    def overdue(self, now_ms: int) -> Failure | None:
        """Which limit has passed, said once."""
        if not any(now_ms >= at for at in self._limit_times()):
            return None
        self._grace_ms = now_ms + GRACE_MS
        run_ms, stall_ms = self._limits.start_to_close_ms, self._limits.stall_ms
        if self._running_ms is not None and now_ms >= self._running_ms + run_ms:
            return failure(Reason.TIMEOUT, f"still running after {run_ms / 1000:g} s, which is the limit")
        if self._hung_at_ms is not None and now_ms >= self._hung_at_ms:
            text = f"still running after {self._limits.hung_ms / 1000:g} s, far longer than such workflows have taken"
            return failure(Reason.STALLED, text)
        return failure(Reason.STALLED, f"no sign of life for {stall_ms / 1000:g} s")

    def _limit_times(self) -> list[int]:
        if self._over or self._grace_ms is not None:
            return []
        times = [self._sign_ms + self._limits.stall_ms]
        if self._running_ms is not None:
            times.append(self._running_ms + self._limits.start_to_close_ms)
        if self._hung_at_ms is not None:
            times.append(self._hung_at_ms)
        return times

    @property
    def _hung_at_ms(self) -> int | None:
        if self._running_ms is None or not self._limits.hung_ms:
            return None
        return self._running_ms + self._limits.hung_ms
