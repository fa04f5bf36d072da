"""Workers without a ComfyUI, many in one process: `python -m scripts.crew --endpoint tcp://… --workers 500`.

Each has its own socket, name and session and speaks the contract as the product's worker does: the worker's own Link
decides when to announce, beat, say Ready and say an end again. A dispatch is read, and its prompt ends at once:
accepted, started, complete without outputs. One thread and one epoll over all sockets; the process ends with SIGTERM.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import random
import select
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import zmq

from broker.protocol.codec import BROKER_TO_WORKER, decode, encode
from broker.protocol.records import Gpu, Held, Phase, Progress, ProgressKind, Stats, Timings
from broker.protocol.worker import Accepted, Capabilities, Complete, Dispatch, Heartbeat, ProgressReport, Recorded
from broker.runtime import sockets
from broker.runtime.settings import Network
from worker.core.asks import NewSocket, Pulse, Send, Stop, StoreCapabilities
from worker.core.link import Facts, Identity, Link

CARD: Final = Gpu(name="none", kind="cpu", vram_total_bytes=8 << 30)
STATS: Final = Stats(
    gpu_busy=0.0, vram_free_bytes=4 << 30, vram_total_bytes=8 << 30, gpu_celsius=60, gpu_watts=200,
    ram_free_bytes=8 << 30, ram_total_bytes=16 << 30, disk_free_bytes=64 << 30, cpu_busy=0.1, comfy_queue=0,
    comfy_fault="",
)  # fmt: skip
STARTED: Final = Progress(
    kind=ProgressKind.STARTED, node_id="", node_type="", value=0, most=0, fraction=0.0, text=""
)  # fmt: skip
TIMINGS: Final = Timings(staging_ms=0, waiting_ms=0, running_ms=0, loading_ms=0, finishing_ms=0)
#: All of them offer the same.
DIGEST: Final = "c" * 64
OFFER: Final = Capabilities(digest=DIGEST, nodes=("Nothing",), models=())
#: As with [broker] prefetch = 1.
CREDITS: Final = 2
#: The longest sleep.
TURN_MS: Final = 500


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Member:
    """One worker."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], network: Network, name: str) -> None:
        session = uuid.uuid4().hex
        self.socket = sockets.dealer(context, "workers", network, None, session.encode())
        who = Identity(worker=name, session=session, version="1", labels=())
        self._link = Link(who, draw=random.random, held=self._held)
        self._facts = Facts(comfyui_version="0", simulated=True, capabilities=DIGEST, gpu=CARD)
        self._outbox: deque[list[bytes]] = deque()

    @property
    def joined(self) -> bool:
        return self._link.joined

    def due_ms(self) -> int:
        due_ms = self._link.deadline_ms()
        return now_ms() + TURN_MS if due_ms is None else due_ms

    def introduce(self) -> None:
        asks: list[Any] = []
        self._link.introduce(asks, self._facts, now_ms())
        self._act(asks)

    def hear(self) -> None:
        """Whatever has arrived, until nothing more has: what comes while it speaks may not be told of again."""
        while asks := self._heard():
            self._act(asks)

    def _heard(self) -> list[Any]:
        asks: list[Any] = []
        try:
            while True:
                self._take(asks, decode(self.socket.recv_multipart(zmq.NOBLOCK), BROKER_TO_WORKER))
        except zmq.Again:
            if self.joined:
                self._link.room(asks, self._credits(), idle=True)
            return asks

    def _credits(self) -> int:
        return CREDITS

    def tick(self) -> None:
        asks: list[Any] = []
        self._link.tick(asks, now_ms())
        self._act(asks)
        self.hear()

    def _take(self, asks: list[Any], said: Any) -> None:
        self._link.received(asks, said, now_ms())
        if isinstance(said, Dispatch):
            self._run(asks, said)
        elif isinstance(said, Recorded):
            self._link.recorded((said.job_id, said.attempt))

    def _run(self, asks: list[Any], said: Dispatch) -> None:
        """The prompt does nothing; that it parses is all that is asked of it."""
        json.loads(said.workflow)
        self._link.dispatched(said.serial)
        key: Any = {"job_id": said.job_id, "attempt": said.attempt}
        asks.append(Send(Accepted(**key, prompt_id=said.job_id)))
        asks.append(Send(ProgressReport(**key, serial=1, progress=STARTED, media_type="", image=b"")))
        self._link.ended(asks, Complete(**key, outputs=(), timings=TIMINGS), now_ms())

    def _held(self) -> tuple[Held, ...]:
        ended = list(self._link.ends)[:64]
        return tuple(Held(job_id=job_id, attempt=attempt, phase=Phase.ENDED) for job_id, attempt in ended)

    def _act(self, asks: Sequence[Any]) -> None:
        for ask in asks:
            match ask:
                case Send(message):
                    self._outbox.append(encode(message))
                case Pulse(held):
                    self._outbox.append(encode(Heartbeat(stats=STATS, held=held)))
                case StoreCapabilities():
                    self._outbox.append(encode(OFFER))
                case NewSocket():
                    pass  # a thousand that dial at once take their time; the broker does not go away
                case Stop(why):
                    raise SystemExit(f"crew: {why}")
        try:
            while self._outbox:
                self.socket.send_multipart(self._outbox[0], zmq.NOBLOCK)
                self._outbox.popleft()
        except zmq.Again:
            return  # until it is connected


class Crew:
    def __init__(self, endpoint: str, names: Iterable[str]) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._context.set(zmq.MAX_SOCKETS, 20_000)
        network = dataclasses.replace(Network(), workers=endpoint)
        self._members = [Member(self._context, network, name) for name in names]
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        #: (when, which) to let time pass next; what comes later than thought is asked once too often.
        self._due: list[tuple[int, int]] = []
        for number, member in enumerate(self._members):
            fd = int(member.socket.fd)
            self._by_fd[fd] = member
            # Told once for each change: `hear` takes all there is.
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
            member.introduce()
            self._due.append((member.due_ms(), number))
        heapq.heapify(self._due)

    def run(self) -> None:
        """Until the process is ended."""
        told = False
        while True:
            self._turn()
            if not told and all(member.joined for member in self._members):
                print(f"ready crew of {len(self._members)}", flush=True)
                told = True

    def _turn(self) -> None:
        wait_ms = max(0, min(TURN_MS, self._due[0][0] - now_ms()))
        for fd, _ in self._epoll.poll(wait_ms / 1_000):
            self._by_fd[fd].hear()
        while self._due[0][0] <= now_ms():
            member = self._members[self._due[0][1]]
            member.tick()
            heapq.heapreplace(self._due, (member.due_ms(), self._due[0][1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--endpoint", required=True, help="the broker's socket for workers")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the number in the first one's name")
    given = parser.parse_args()
    Crew(given.endpoint, [f"crew-{given.first + number}" for number in range(given.workers)]).run()


if __name__ == "__main__":
    main()
