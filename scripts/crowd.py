"""Many workers in one process: each the real session and attempts (worker/core) over a real socket of its own, before a
ComfyUI that does nothing but take its time and count what it began.

One thread, as in a worker: `run` turns until a condition holds. What the crowd cannot show is what a process, a card
and the file channel cost.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import zmq

from broker.protocol.codec import BROKER_TO_WORKER, decode, encode
from broker.protocol.records import Gpu, Output, Stats
from broker.protocol.worker import Capabilities, Heartbeat
from broker.runtime import clock, sockets
from broker.runtime.settings import Network
from comfyui import messages
from comfyui.outputs import OutputFile
from comfyui.replies import Absent, Finished, Found, HistoryEntry, Outcome, Pending, Queue, QueueItem, Running
from comfyui.workflow import parse
from worker.core.asks import (
    Deliver,
    Dequeue,
    Interrupt,
    Listen,
    Look,
    NewSocket,
    Pulse,
    Send,
    Stage,
    Stop,
    StoreCapabilities,
    Submit,
    Survey,
)
from worker.core.link import Facts, Identity
from worker.core.machine import Machine
from worker.core.mending import Mending
from worker.core.progress import Pacing

GRAPH: Final = b'{"1":{"class_type":"EmptyImage","inputs":{}},"2":{"class_type":"SaveImage","inputs":{}}}'
NODES: Final = ("EmptyImage", "SaveImage")
FACTS: Final = Facts(
    comfyui_version="0.3.64",
    simulated=True,
    capabilities="c" * 64,
    gpu=Gpu(name="none", kind="cuda", vram_total_bytes=24 << 30),
)
STATS: Final = Stats(
    gpu_busy=None, vram_free_bytes=0, vram_total_bytes=0, gpu_celsius=None, gpu_watts=None,
    ram_free_bytes=0, ram_total_bytes=0, disk_free_bytes=None, cpu_busy=0.0, comfy_queue=0, comfy_fault="",
)  # fmt: skip
PACING: Final = Pacing(poll_ms=5_000, progress_per_s=10, previews_per_s=0)
#: Between two looks at a thousand sockets, so that one serves many messages.
TURN_S: Final = 0.005


class Comfy:
    """A queue that runs one prompt at a time."""

    def __init__(self, begun: Counter[str]) -> None:
        #: The first runs.
        self.items: deque[QueueItem] = deque()
        self.history: dict[str, HistoryEntry] = {}
        self.began_ms: int | None = None
        self._begun = begun

    def begin(self, now_ms: int) -> list[messages.Message]:
        """Start the next prompt if none runs; what the socket tells of it."""
        if self.began_ms is not None or not self.items:
            return []
        self.began_ms = now_ms
        prompt_id = self.items[0].prompt_id
        self._begun[prompt_id] += 1
        return [messages.ExecutionStart(prompt_id), messages.Executing(prompt_id, "1")]

    def finish(self, outcome: Outcome = Outcome.SUCCESS) -> list[messages.Message]:
        prompt_id = self.items.popleft().prompt_id
        self.began_ms = None
        files = (OutputFile("2", "images", f"{prompt_id}.png", "", "output"),) if outcome is Outcome.SUCCESS else ()
        self.history = {prompt_id: HistoryEntry(prompt_id, outcome, files, None, 1, prompt_id)}
        return [messages.ExecutionSuccess(prompt_id), messages.Executing(prompt_id, None)]

    def find(self, prompt_id: str) -> Found:
        if prompt_id in self.history:
            return Finished(self.history[prompt_id])
        for ahead, item in enumerate(self.items):
            if item.prompt_id == prompt_id:
                return Running(item) if self.began_ms is not None and not ahead else Pending(item, ahead)
        return Absent()

    def queue(self) -> Queue:
        runs = 1 if self.began_ms is not None else 0
        return Queue(tuple(self.items)[:runs], tuple(self.items)[runs:])


class Member:
    """One worker: what loop.py is to a real one."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        session = secrets.token_hex(16)
        who = Identity(worker=name, session=session, version="1", labels=())
        mending = Mending(possible=False, patience_ms=0)
        self.machine = Machine(
            who, parse(GRAPH), mending, prefetch=crowd.prefetch, pacing=PACING, draw=random.SystemRandom().random
        )
        self.comfy = Comfy(crowd.begun)
        #: Why it ended by itself.
        self.stopped = ""
        self._crowd = crowd
        self._session = session
        self._calls: deque[Any] = deque()
        self._step = 0
        #: What waits until a broker is connected.
        self.outbox: deque[list[bytes]] = deque(maxlen=100)
        self.socket = crowd.dial(session)

    def rise(self, now_ms: int) -> None:
        self._act(self.machine.comfy_up(self._crowd.facts, targeted_interrupt=True, now_ms=now_ms), now_ms)

    def hear(self, now_ms: int) -> None:
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._act(self.machine.received(decode(frames, BROKER_TO_WORKER), now_ms), now_ms)

    def turn(self, now_ms: int) -> None:
        self._act(self.machine.tick(now_ms), now_ms)
        began_ms = self.comfy.began_ms
        if began_ms is None:
            self._tell(self.comfy.begin(now_ms), now_ms)
            self._step = 0
        elif now_ms >= began_ms + self._crowd.work_ms:
            self._tell(self.comfy.finish(), now_ms)
        elif now_ms >= self._step_ms(began_ms):
            self._step += 1
            step = messages.Progress(self.comfy.items[0].prompt_id, "1", self._step, self._crowd.steps)
            self._tell([step], now_ms)

    def due_ms(self) -> int:
        began_ms = self.comfy.began_ms
        if began_ms is None:
            return 0 if self.comfy.items else self._machine_due_ms()
        return min(self._machine_due_ms(), self._step_ms(began_ms))

    def _machine_due_ms(self) -> int:
        due_ms = self.machine.deadline_ms()
        return due_ms if due_ms is not None else 1 << 62

    def _step_ms(self, began_ms: int) -> int:
        """When it has done the next step."""
        return began_ms + self._crowd.work_ms * (self._step + 1) // (self._crowd.steps + 1)

    def _tell(self, arrived: list[messages.Message], now_ms: int) -> None:
        if arrived:
            self._act(self.machine.heard(arrived, now_ms), now_ms)

    def _act(self, asks: list[Any], now_ms: int) -> None:
        for ask in asks:
            match ask:
                case Send(message):
                    self._say(message)
                case Pulse(held):
                    self._say(Heartbeat(stats=STATS, held=held))
                case NewSocket():
                    self.outbox.clear()
                    self.socket = self._crowd.redial(self.socket, self._session)
                case StoreCapabilities():
                    self._say(Capabilities(digest=self._crowd.facts.capabilities, nodes=NODES, models=()))
                case Stop(why):
                    self.stopped = why
                case _:
                    self._calls.append(ask)
        while self._calls:
            self._act(self._made(self._calls.popleft(), now_ms), now_ms)

    def _say(self, message: Any) -> None:
        self.outbox.append(encode(message))
        self.flush()

    def flush(self) -> None:
        while self.outbox:
            try:
                self.socket.send_multipart(self.outbox[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self.outbox.popleft()

    def _made(self, call: Any, now_ms: int) -> list[Any]:
        """Do what is asked of ComfyUI; what the machine then asks."""
        machine, comfy, outputs = self.machine, self.comfy, self._crowd.outputs
        match call:
            case Submit(key, prompt_id):
                comfy.items.append(QueueItem(prompt_id, 0.0, machine.client_id, prompt_id))
                return machine.answer(key, lambda run, out: run.submitted(out, prompt_id, {}, now_ms), now_ms)
            case Look(key, prompt_id):
                return machine.looked(key, comfy.find(prompt_id), now_ms)
            case Survey():
                return machine.surveyed(comfy.queue(), now_ms)
            case Deliver(key):
                return machine.answer(key, lambda run, out: run.delivered(out, outputs, now_ms), now_ms)
            case Stage(key):
                return machine.answer(key, lambda run, out: run.inputs_staged(out, {}, now_ms), now_ms)
            case Dequeue(prompt_id):
                comfy.items = deque(item for item in comfy.items if item.prompt_id != prompt_id)
            case Interrupt(prompt_id) if comfy.items and comfy.items[0].prompt_id == prompt_id:
                return machine.heard(comfy.finish(Outcome.INTERRUPTED), now_ms)
            case Listen():
                return machine.comfy_up(self._crowd.facts, targeted_interrupt=True, now_ms=now_ms)
        return []


class Crowd:
    def __init__(
        self,
        endpoint: str,
        count: int,
        *,
        work_ms: int,
        steps: int = 0,
        prefetch: int = 0,
        facts: Facts = FACTS,
        outputs: tuple[Output, ...] = (),
    ) -> None:
        """endpoint: the broker's workers socket. steps: of progress that a prompt tells. outputs: what each makes,
        which the broker's file store has already."""
        self.work_ms, self.steps, self.prefetch = work_ms, steps, prefetch
        self.facts, self.outputs = facts, outputs
        #: How often each prompt was begun.
        self.begun: Counter[str] = Counter()
        self._network = Network(workers=endpoint)
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._context.max_sockets = 2 * count + 16
        self._poller = zmq.Poller()
        self.members = [Member(self, f"crowd-{number}") for number in range(1, count + 1)]
        now_ms = clock.monotonic_ms()
        for member in self.members:
            member.rise(now_ms)

    def run(self, until: Callable[[], bool], *, within_s: float, what: str) -> None:
        """Turn until that holds. Raises TimeoutError naming `what`."""
        deadline_s = time.monotonic() + within_s
        while not until():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"after {within_s:g} s: not yet {what}")
            self.turn()

    def turn(self) -> None:
        """Take what has arrived, and do what is due."""
        ready = {socket for socket, _ in self._poller.poll(0)}
        now_ms = clock.monotonic_ms()
        for member in self.members:
            if member.socket in ready:
                member.hear(now_ms)
            if member.due_ms() <= now_ms:
                member.turn(now_ms)
            member.flush()
        time.sleep(TURN_S)

    def joined(self) -> int:
        return sum(1 for member in self.members if member.machine.link.joined)

    def close(self) -> None:
        for member in self.members:
            member.socket.close(linger=0)
        self._context.term()

    def stopped(self) -> Iterator[str]:
        return (member.stopped for member in self.members if member.stopped)

    def dial(self, session: str) -> zmq.Socket[bytes]:
        socket = sockets.dealer(self._context, "workers", self._network, None, session.encode())
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def redial(self, before: zmq.Socket[bytes], session: str) -> zmq.Socket[bytes]:
        self._poller.unregister(before)
        before.close(linger=0)
        return self.dial(session)


def main(flags: list[str]) -> None:
    """Be a crowd until this process is ended."""
    parser = argparse.ArgumentParser(description="Workers before ComfyUIs that do nothing.")
    parser.add_argument("endpoint", help="the broker's socket for workers")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--work-ms", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=0, help="of progress that each prompt tells")
    parser.add_argument("--capabilities", default=FACTS.capabilities, help="the digest of what they can do")
    parser.add_argument(
        "--output", type=json.loads, action="append", default=[], help="what each makes, as in a JobView"
    )
    given = parser.parse_args(flags)
    outputs = tuple(Output(**made) for made in given.output)
    facts = dataclasses.replace(FACTS, capabilities=given.capabilities)
    crowd = Crowd(given.endpoint, given.count, work_ms=given.work_ms, steps=given.steps, facts=facts, outputs=outputs)
    while True:
        crowd.turn()


if __name__ == "__main__":
    main(sys.argv[1:])
