"""The faults a simulator commits on command, so that others can be tested against them.

It only keeps the list of what is asked for and how often; each fault is committed where it belongs (executor.py,
server.py, nodes.py). Source: nothing here exists in the real server.
"""

from dataclasses import dataclass, field
from typing import Any

FOREVER = None
#: Kind → its options and their defaults. `times` (default 1, null for ever) goes with every kind.
KINDS: dict[str, dict[str, Any]] = {
    # The process is gone at once, as by SIGKILL, while it runs a prompt: at its start, in the middle, after its
    # pictures are saved and before anybody is told.
    "die": {"at": "mid"},
    # A prompt starts and never ends, and no interrupt reaches it.
    "hang": {"at": "mid"},
    # Sockets stay open and nothing is sent on them, for so many seconds (null: until it is lifted).
    "silent": {"seconds": FOREVER},
    # Every open socket is cut, now.
    "drop": {},
    # No connection is taken, and those open are cut, for so many seconds.
    "refuse": {"seconds": 1.0},
    # A prompt fails for want of graphics memory, and the models are unloaded.
    "oom": {},
    # A prompt fails with a CUDA error, and every prompt after it, until the process starts anew.
    "cuda-poison": {},
    # A route answers 500 without doing anything.
    "http-500": {"route": "/prompt"},
    # A route answers late.
    "slow": {"route": "/prompt", "seconds": 1.0},
    # A route does what it was asked and the connection is cut instead of an answer.
    "drop-reply": {"route": "/prompt"},
    # A route does what it was asked and answers 200 with a page of HTML.
    "not-json": {"route": "/prompt"},
    # POST /prompt queues the prompt and answers 200 without its id.
    "no-prompt-id": {},
    # A route's answer ends in the middle: its length is announced in full.
    "cut": {"route": "/view"},
    # A saved picture has only half its bytes.
    "truncate": {},
    # A saved picture is blown up to so many bytes.
    "huge": {"bytes": 64 * 1024 * 1024},
    # The history is written so many seconds after the prompt is reported done.
    "late-history": {"seconds": 0.3},
}
MOMENTS = ("start", "mid", "saved")


class BadMischief(ValueError):
    """The order cannot be carried out; the text says what would be."""


@dataclass
class Trouble:
    """One fault in waiting."""

    kind: str
    #: How often it will still happen; None for ever.
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)


class Mischief:
    """All faults in waiting, oldest first."""

    def __init__(self) -> None:
        self._troubles: list[Trouble] = []

    def order(self, wish: Any) -> Trouble:
        """Adds a fault from {"kind": …, "times": …, options …}. Raises BadMischief."""
        if not isinstance(wish, dict) or wish.get("kind") not in KINDS:
            raise BadMischief(f"kind must be one of {', '.join(KINDS)}")
        kind = wish["kind"]
        defaults = KINDS[kind]
        times = wish.get("times", 1)
        strange = set(wish) - set(defaults) - {"kind", "times"}
        if strange:
            raise BadMischief(f"{kind} has no option {sorted(strange)[0]!r}; it has {['times', *defaults]}")
        if times is not FOREVER and not (isinstance(times, int) and times > 0):
            raise BadMischief(f"times must be a positive whole number or null, not {times!r}")
        options = defaults | {name: value for name, value in wish.items() if name in defaults}
        if "at" in options and options["at"] not in MOMENTS:
            raise BadMischief(f"at must be one of {', '.join(MOMENTS)}, not {options['at']!r}")
        trouble = Trouble(kind, times, options)
        self._troubles.append(trouble)
        return trouble

    def strike(self, kind: str, **match: Any) -> dict[str, Any] | None:
        """The options of the oldest waiting fault of this kind whose options match, used up once; else None."""
        for trouble in self._troubles:
            if trouble.kind == kind and all(trouble.options.get(name) == value for name, value in match.items()):
                if trouble.times is not FOREVER:
                    trouble.times -= 1
                    if trouble.times == 0:
                        self._troubles.remove(trouble)
                return trouble.options
        return None

    def lift(self) -> None:
        """Forgets every fault that waits."""
        self._troubles.clear()

    def waiting(self) -> list[dict[str, Any]]:
        return [{"kind": t.kind, "times": t.times, **t.options} for t in self._troubles]
