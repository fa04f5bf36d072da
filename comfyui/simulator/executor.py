"""Runs prompts one after the other, as the real server's worker thread does.

One task owns it. It keeps the results of the previous prompt only, looks for an interrupt before each node and at every
tick of progress, and writes the history after the end was reported. Telling others is run.py's duty.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from comfyui.simulator.catalog import Catalog
from comfyui.simulator.context import OUT_OF_MEMORY, Context, NodeFailure, Outcome, Rig
from comfyui.simulator.events import Sockets
from comfyui.simulator.graph import Cycle, Graph, Order, is_link, signatures
from comfyui.simulator.nodes import RUN
from comfyui.simulator.queue import Item, PromptQueue
from comfyui.simulator.run import Run

#: Exit status of a process that was told to die.
DIED = 86
#: Classes that work on the card: where a prompt fails when the card does.
ON_CARD = ("CLIPTextEncode", "KSampler", "VAEDecode", "VAEEncode", "ImageUpscaleWithModel")
#: So many results beyond the running prompt's are kept where late servers keep what memory allows.
LATE_CACHE = 100
CUDA_ERROR = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported at a later call."


class Interrupted(Exception):
    """The running prompt was interrupted."""


@dataclass
class Kept:
    """A node's result that the next prompt may reuse, and whose it was."""

    outcome: Outcome
    meta: dict[str, Any]


class Executor:
    """The worker of one simulator."""

    def __init__(self, rig: Rig, catalog: Catalog, queue: PromptQueue, sockets: Sockets) -> None:
        self._rig = rig
        self._catalog = catalog
        self._queue = queue
        self._sockets = sockets
        self._kept: dict[str, Kept] = {}
        #: (node id, class) → the letters in its temp files' names.
        self._letters: dict[tuple[str, str], str] = {}
        self._wake = asyncio.Event()
        self._interrupted = False
        self._poisoned = False
        #: How the last node that ran ended: what the real server tells of a prompt that turned in circles, too.
        self._went_well = True
        #: Asked for by POST /free, done between prompts.
        self.unload_models = False
        self.free_memory = False
        #: Owner and node of what runs: what a client that reconnects is told.
        self.client_id: str | None = None
        self.last_node_id: str | None = None

    def wake(self) -> None:
        """Something was put into the queue, or asked for by POST /free."""
        self._wake.set()

    def interrupt(self) -> None:
        """Stops the running prompt at the next occasion; without one it is forgotten when the next prompt starts."""
        self._interrupted = True

    async def work(self) -> None:
        """Takes prompts for ever."""
        while True:
            self._free()
            item = self._queue.take()
            if item is None:
                self._wake.clear()
                await self._wake.wait()
            else:
                await self._prompt(item)

    def _free(self) -> None:
        if self.unload_models or self.free_memory:
            self._rig.memory.unload()
        if self.free_memory:
            self._kept.clear()
        self.unload_models = self.free_memory = False

    async def _prompt(self, item: Item) -> None:
        run = Run(item, self._rig.release, self._sockets)
        self._rig.journal.note("started", prompt_id=run.prompt_id, number=item[0])
        self._interrupted = False
        if not isinstance(item[3], dict):  # "extra_data": null ends the real server's worker thread for good
            await self._hang(run, "extra_data is no object")
        self.client_id = run.client_id
        run.started()
        if any("inputs" not in node for node in run.graph.values()):  # so does this, in a node that no output needs
            await self._hang(run, "a node has no inputs")
        keys = signatures(run.graph, self._changed(run.graph))
        self._forget_unused(run, keys)
        run.cached([node_id for node_id in run.graph if keys[node_id] in self._kept])
        try:
            order = Order(run.graph, run.wanted, lambda node: keys[node] in self._kept)
        except KeyError:  # and a link to nowhere, where no class knows the input: validation does not look at those
            await self._hang(run, "a link leads nowhere")
        ending = await self._nodes(run, keys, order)
        outputs, meta = self._outputs(run, keys)
        self._rig.journal.note(ending, prompt_id=run.prompt_id, outputs=outputs)
        self.last_node_id = None
        await self._moment(run, "saved")
        await asyncio.sleep(self._history_lag_s())
        done = ending == "finished" or (ending == "turns in circles" and self._went_well)
        self._went_well = done
        status = {"status_str": "success" if done else "error", "completed": done, "messages": run.messages}
        self._queue.finish(status, outputs, meta)
        run.ended()

    async def _nodes(self, run: Run, keys: dict[str, str], order: Order) -> str:
        """Runs all nodes; how it ended, in the journal's words."""
        try:
            await self._moment(run, "start")
            for node_id in order:
                self._went_well = True
                kept = self._kept.get(keys[node_id])
                if kept is not None:  # only outputs are asked for although they are kept
                    run.node_was_cached(node_id, kept.outcome.shown)
                else:
                    await self._node(run, node_id, keys)
        except Interrupted:
            run.interrupted()
            return "interrupted"
        except Cycle as e:
            run.circular(e)
            return "turns in circles"
        except Exception as e:  # noqa: BLE001 - whatever a node raises is its prompt's end and nobody else's
            if run.failed(e, self._shown_inputs(run, keys)) == OUT_OF_MEMORY:
                self._rig.memory.unload()
            return "failed"
        run.succeeded()
        return "finished"

    async def _node(self, run: Run, node_id: str, keys: dict[str, str]) -> None:
        run.node_runs(node_id)
        if run.client_id is not None:
            self.last_node_id = node_id
        await asyncio.sleep(0)  # let what was reported go out
        if self._interrupted:
            raise Interrupted
        if node_id in run.wanted and not any(run.class_of(node) == "KSampler" for node in run.graph):
            await self._moment(run, "mid")  # a prompt without a sampler has its middle here
        self._fail_card(run, node_id)
        context = self._context(run, node_id)
        outcome = await RUN[run.class_of(node_id)](context, **self._inputs(run, node_id, keys))
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self._kept[keys[node_id]] = Kept(outcome, meta)
        run.node_ran(node_id, outcome.shown)

    def _context(self, run: Run, node_id: str) -> Context:
        async def tick(value: int, maximum: int, picture: tuple[str, bytes] | None) -> None:
            if self._interrupted:
                raise Interrupted
            run.tick(value, maximum, picture)
            await asyncio.sleep(0)

        async def midway() -> None:
            await self._moment(run, "mid")

        letters = "".join(self._rig.chance.choices("abcdefghijklmnopqrstuvwxyz", k=5))
        letters = self._letters.setdefault((node_id, run.class_of(node_id)), letters)
        return Context(self._rig, run.graph, run.extra_data, letters, tick, midway)

    def _inputs(self, run: Run, node_id: str, keys: dict[str, str]) -> dict[str, Any]:
        """The node's inputs by name, with the results behind the links; inputs its class does not know are left out."""
        known = self._catalog.inputs(run.class_of(node_id))
        return {
            name: self._kept[keys[value[0]]].outcome.values[int(value[1])] if is_link(value) else value
            for name, value in run.graph[node_id]["inputs"].items()
            if name in known
        }

    def _shown_inputs(self, run: Run, keys: dict[str, str]) -> dict[str, Any]:
        """The running node's inputs as an error shows them, with what the server itself hands to it."""
        hidden: dict[str, Any] = {}
        if self._catalog.takes_prompt(run.class_of(run.node_id)):
            hidden = {"prompt": run.graph, "extra_pnginfo": run.extra_data.get("extra_pnginfo")}
        return self._inputs(run, run.node_id, keys) | hidden

    def _changed(self, graph: Graph) -> Callable[[str], str]:
        """What a node's result depends on beyond its inputs: a loaded file's digest, or something new each time."""

        def changed(node_id: str) -> str:
            node = graph[node_id]
            if node["class_type"] == "SaveImageWebsocket":
                return str(self._rig.chance.random())
            if node["class_type"] == "LoadImage" and isinstance(node.get("inputs", {}).get("image"), str):
                file = self._rig.folders.picture(node["inputs"]["image"])
                return sha256(file.read_bytes()).hexdigest() if file.is_file() else "absent"
            return ""

        return changed

    def _forget_unused(self, run: Run, keys: dict[str, str]) -> None:
        """Keeps results and letters only for what is in this prompt; late servers keep results longer."""
        present = set(keys.values())
        spare = [key for key in self._kept if key not in present]
        for key in spare[:-LATE_CACHE] if self._rig.release.modern else spare:
            del self._kept[key]
        named = {(node_id, run.class_of(node_id)) for node_id in run.graph}
        self._letters = {node: letters for node, letters in self._letters.items() if node in named}

    def _outputs(self, run: Run, keys: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What every node of the prompt shows, and its meta; also of nodes that an earlier prompt ran."""
        kept = {node_id: self._kept[keys[node_id]] for node_id in run.graph if keys[node_id] in self._kept}
        outputs = {node_id: k.outcome.shown for node_id, k in kept.items() if k.outcome.shown is not None}
        return outputs, {node_id: kept[node_id].meta for node_id in outputs}

    def _history_lag_s(self) -> float:
        """The real server reports success some ms before the history has it, now and then a third of a second."""
        late = self._rig.mischief.strike("late-history")
        if late is not None:
            return float(late["seconds"])
        if self._rig.idle_work:
            return 0.0
        return (0.3 if self._rig.chance.random() < 0.05 else 0.003) / self._rig.pace.speed

    def _fail_card(self, run: Run, node_id: str) -> None:
        """Fails the prompt where it first uses the card, if that is asked for; at its first node if it never does."""
        if run.class_of(node_id) not in ON_CARD and any(run.class_of(node) in ON_CARD for node in run.graph):
            return
        if self._rig.mischief.strike("oom") is not None:
            raise NodeFailure(OUT_OF_MEMORY, "CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self._poisoned or self._rig.mischief.strike("cuda-poison") is not None:
            self._poisoned = True
            raise NodeFailure("RuntimeError", CUDA_ERROR)

    async def _moment(self, run: Run, at: str) -> None:
        """Dies or hangs here if that is asked for."""
        if self._rig.mischief.strike("die", at=at) is not None:
            self._rig.journal.note("died", prompt_id=run.prompt_id, moment=at)
            os._exit(DIED)
        if self._rig.mischief.strike("hang", at=at) is not None:
            await self._hang(run, at)

    async def _hang(self, run: Run, why: str) -> None:
        self._rig.journal.note("hangs", prompt_id=run.prompt_id, moment=why)
        await asyncio.Event().wait()
