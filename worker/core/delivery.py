"""The results of one attempt on their way to the broker: asked for on a hint, counted when the history has confirmed
them. Pure.

When all nodes have run, ComfyUI's socket says so and has named the files; the history that makes it true follows some
milliseconds later, and is one more question. What was begun on the hint is on its way meanwhile.

That small files have left is enough to tell of the result: the broker counts it once they are durable, or says that it
lacks them, and then all are sent again and waited for.
"""

from __future__ import annotations

from broker.protocol.records import Output
from worker.core.asks import Deliver, Key, Source


class Delivery:
    def __init__(self, key: Key) -> None:
        self._key = key
        #: What the prompt has made, by its history.
        self._results: tuple[Source, ...] = ()
        #: What was asked for last, and what has come of that: None while it is under way.
        self._asked: tuple[Source, ...] = ()
        self._stored: dict[Source, Output] | None = None

    def hinted(self, results: tuple[Source, ...]) -> list[Deliver]:
        """The socket says that all nodes ran and made these."""
        return [] if self._asked or not results else self._ask(results)

    def confirmed(self, results: tuple[Source, ...]) -> list[Deliver]:
        """The history says what counts; whatever of it was not begun is asked for."""
        self._results = results
        return [] if set(results) <= set(self._asked) else self._ask(results)

    def again(self) -> list[Deliver]:
        """The broker has lost some."""
        return self._ask(self._results, surely=True)

    def stored(self, outputs: tuple[Output, ...]) -> None:
        """All that was asked for is with the broker, or on its way; none, if nobody wants it (a probe's picture)."""
        if self._asked:
            self._stored = dict(zip(self._asked, outputs, strict=bool(outputs)))

    def failed(self) -> list[Deliver]:
        """What was asked for cannot be had. Answers what is left to try: where more was hinted than counts."""
        hinted, self._asked = self._asked, ()
        return self._ask(self._results) if self._results and hinted != self._results else []

    @property
    def under_way(self) -> bool:
        return bool(self._asked) and self._stored is None

    @property
    def outputs(self) -> tuple[Output, ...] | None:
        """The results as they are stored; None while any is missing."""
        if not self._results:
            return ()
        stored = self._stored
        return None if stored is None else tuple(stored[source] for source in self._results if source in stored)

    def _ask(self, sources: tuple[Source, ...], *, surely: bool = False) -> list[Deliver]:
        self._asked, self._stored = sources, None
        return [Deliver(self._key, sources, surely)]
