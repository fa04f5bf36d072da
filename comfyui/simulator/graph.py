"""The graph of a prompt: its links, the order in which nodes run, and what makes two nodes the same for the cache.

Pure: no I/O, no clock. It does not judge whether a graph is valid (validate.py).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any

#: Node id → {"class_type": …, "inputs": {…}}, as posted.
Graph = dict[str, dict[str, Any]]


def is_link(value: Any) -> bool:
    """A link is [node id, output slot]."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def sources(graph: Graph, node_id: str) -> list[str]:
    """The nodes this one takes inputs from, in the order of its inputs."""
    return [value[0] for value in graph[node_id]["inputs"].values() if is_link(value)]


class Cycle(Exception):
    """Nodes wait for each other; only inputs that no class knows can make them, for validation follows all others."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Dependency cycle detected")
        #: The node that is blamed.
        self.node_id = node_id


class Order:
    """Hands out nodes in the order the real server runs them.

    Only wanted outputs and what they need are in it; what is cached is left out. Among the nodes that could run, an
    output node goes first, then one that feeds an output directly, then one a step further back, then the oldest.

    Making one raises KeyError for a link to a node that is not there, iterating raises Cycle.
    """

    def __init__(self, graph: Graph, outputs: Iterable[str], is_cached: Callable[[str], bool]) -> None:
        self._graph = graph
        self._outputs = set(outputs)
        self._waits: dict[str, set[str]] = {}  # node → what it still waits for; insertion order matters
        self._feeds: dict[str, set[str]] = {}
        for output in outputs:
            self._add(output, is_cached)

    def _add(self, output: str, is_cached: Callable[[str], bool]) -> None:
        stack = [output]
        while stack:
            node = stack.pop()
            if node in self._waits:
                continue
            needed = [source for source in sources(self._graph, node) if not is_cached(source)]
            self._waits[node] = set(needed)
            for source in needed:
                self._feeds.setdefault(source, set()).add(node)
            stack.extend(needed)

    def __iter__(self) -> Iterator[str]:
        """Each node once; asking for the next one says that the last one is done."""
        while self._waits:
            ready = [node for node, needed in self._waits.items() if not needed]
            if not ready:
                raise Cycle(next(iter(self._waits)))
            node = self._pick(ready)
            yield node
            del self._waits[node]
            for waiting in self._feeds.get(node, ()):
                self._waits[waiting].discard(node)

    def _pick(self, ready: list[str]) -> str:
        def near(node: str, steps: int) -> bool:
            if steps == 0:
                return node in self._outputs
            return any(near(fed, steps - 1) for fed in self._feeds.get(node, ()))

        for steps in (0, 1, 2):
            for node in ready:
                if near(node, steps):
                    return node
        return ready[0]


def signatures(graph: Graph, changed: Callable[[str], str]) -> dict[str, str]:
    """Node id → a text equal for two nodes exactly when the second may reuse the first one's result.

    Ids and titles do not count, classes and inputs do, and so does `changed`: what a class says about the world
    outside its inputs (a file's digest; something new each time if it must always run).
    """
    known: dict[str, str] = {}

    def signature(node_id: str) -> str:
        if node_id not in known:
            known[node_id] = "loop"  # only nodes that no output needs can be part of one
            node = graph[node_id]
            inputs = {name: (behind(value) if is_link(value) else value) for name, value in node["inputs"].items()}
            text = json.dumps([node["class_type"], changed(node_id), inputs], sort_keys=True)
            known[node_id] = sha256(text.encode()).hexdigest()
        return known[node_id]

    def behind(link: list[Any]) -> list[Any]:
        return ["link", signature(link[0]) if link[0] in graph else "nowhere", link[1]]

    return {node_id: signature(node_id) for node_id in graph}
