"""The prompt queue and the history of one simulator, all in memory and lost with it, as in the real server.

No I/O and no clock: whoever puts, takes or deletes is told through `changed`, which the server turns into a status
message. The heap orders by (number, prompt_id) and then compares the graphs, which fails: that is the real server's
500 for a repeated id with the same number, and as there the item stays in the queue.
"""

import copy
import heapq
from collections.abc import Callable
from typing import Any

from comfyui.simulator.graph import Graph
from comfyui.simulator.versions import Release

#: (number, prompt_id, graph, extra_data, outputs to execute); number is what orders the queue, smallest first, and
#: extra_data an object unless a client sent something else.
Item = tuple[float, str, Graph, Any, list[str]]
Entry = dict[str, Any]

#: Keys of extra_data that are secrets.
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
#: More finished prompts than this push out the oldest.
MOST_REMEMBERED = 10000


class PromptQueue:
    """What waits, what runs and what has run."""

    def __init__(self, release: Release, changed: Callable[[], None]) -> None:
        self._release = release
        self._changed = changed
        self._heap: list[Item] = []
        #: The prompt that runs now, one at most.
        self.running: Item | None = None
        self._history: dict[str, Entry] = {}

    def put(self, item: Item) -> None:
        """Raises TypeError when an item with the same number and id waits already; the item is in the queue then."""
        heapq.heappush(self._heap, item)
        self._changed()

    def take(self) -> Item | None:
        """The next prompt, now running; None when nothing waits. Call only when nothing runs."""
        if not self._heap:
            return None
        self.running = heapq.heappop(self._heap)
        self._changed()
        return self.running

    def finish(self, status: Entry, outputs: Entry, meta: Entry) -> None:
        """Moves the running prompt into the history."""
        assert self.running is not None
        number, prompt_id, graph, extra_data, wanted = self.running
        if self._release.negotiates:
            extra_data = {key: value for key, value in extra_data.items() if key not in SECRETS}
        if len(self._history) >= MOST_REMEMBERED:
            self._history.pop(next(iter(self._history)))
        prompt = [number, prompt_id, graph, extra_data, wanted]
        self._history[prompt_id] = {
            "prompt": prompt,
            "outputs": copy.deepcopy(outputs),
            "status": status,
            "meta": meta,
        }
        self.running = None
        self._changed()

    def remaining(self) -> int:
        return len(self._heap) + (self.running is not None)

    def is_running(self, prompt_id: str) -> bool:
        return self.running is not None and self.running[1] == prompt_id

    def items(self) -> tuple[list[Item], list[Item]]:
        """What runs and what waits; the waiting ones in heap order, as GET /queue shows them."""
        running = [] if self.running is None else [self.running]
        if self._release.modern:
            return [_without_secrets(item) for item in running], [_without_secrets(item) for item in self._heap]
        return running, list(self._heap)

    def clear(self) -> None:
        self._heap.clear()
        self._changed()

    def delete(self, prompt_id: str) -> bool:
        """Takes one waiting prompt of this id out; the running one and unknown ids are left alone."""
        for place, item in enumerate(self._heap):
            if item[1] == prompt_id:
                self._heap.pop(place)
                heapq.heapify(self._heap)
                self._changed()
                return True
        return False

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Entry]:
        """A window of the finished prompts, oldest first; max_items alone means the newest ones."""
        entries = list(self._history.items())
        start = len(entries) - max_items if offset < 0 and max_items is not None else offset
        window = entries[max(0, start) :]
        return dict(window if max_items is None else window[:max_items])

    def remembered(self, prompt_id: str) -> dict[str, Entry]:
        entry = self._history.get(prompt_id)
        return {} if entry is None else {prompt_id: entry}

    def forget(self, prompt_id: str) -> None:
        self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        self._history.clear()


def _without_secrets(item: Item) -> Item:
    number, prompt_id, graph, extra_data, wanted = item
    return number, prompt_id, graph, {k: v for k, v in extra_data.items() if k not in SECRETS}, wanted
