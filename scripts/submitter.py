"""A client of the broker itself: submits by the contract, as a web process does, and hears which jobs are over.

Owns its two sockets. The jobs are alike but for their ids: a workflow of two kilobytes that asks for nothing.
"""

from __future__ import annotations

import dataclasses
import json
import random
import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import zmq

from broker.protocol import client
from broker.protocol.codec import BROKER_TO_CLIENT, decode, encode
from broker.protocol.events import TOPIC_JOB
from broker.protocol.records import JobState, Needs
from broker.protocol.worker import Invalid
from broker.runtime import sockets
from broker.runtime.settings import Network
from scripts.fleet import Fleet

#: As long as nothing comes, something is wrong.
SILENCE_S: Final = 60.0
NEEDS: Final = Needs(nodes=("Nothing",), models=(), labels=(), vram_bytes=0, pixels=0, steps=0, signature="nothing")
OVER: Final = frozenset(state.value for state in JobState if state.terminal)


def workflow() -> Any:
    """A graph of two kilobytes of JSON, with a seed of its own."""
    words = "a lighthouse at dusk, its lamp just lit, gulls above the breakers, oil on canvas"
    sampled = {"seed": random.getrandbits(32), "steps": 20, "cfg": 7.0, "sampler_name": "euler", "denoise": 1.0}
    nodes = {
        str(at): {"class_type": "Nothing", "inputs": {**sampled, "text": words, "on": ["1", at]}} for at in range(10)
    }
    return nodes


class Submitter:
    """`with Submitter(fleet) as submitter: …`. watch: hear of the jobs' ends, too."""

    def __init__(self, fleet: Fleet, *, watch: bool = True) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        network = dataclasses.replace(
            Network(), clients=fleet.endpoint("clients"), events=fleet.endpoint("events"), queue=100_000
        )
        self._socket = sockets.dealer(self._context, "clients", network, None, secrets.token_hex(16).encode())
        self._socket.immediate = False
        self._events = sockets.subscriber(self._context, network, None, [TOPIC_JOB] if watch else [])
        self._poller = zmq.Poller()
        for socket in (self._socket, self._events):
            self._poller.register(socket, zmq.POLLIN)
        if watch:
            self._await_news()

    def __enter__(self) -> Submitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)
        self._events.close()
        self._context.term()

    def accept(self, count: int, window: int) -> list[float]:
        """Submit so many jobs, at most `window` of them unanswered at once; the seconds that each answer took."""
        took: list[float] = []
        sent: dict[str, float] = {}
        left = count
        while len(took) < count:
            while left and len(sent) < window:
                request_id, _ = self._submit()
                sent[request_id] = time.perf_counter()
                left -= 1
            self._wait()
            took += [time.perf_counter() - sent.pop(reply.request_id) for reply in self._replies()]
        return took

    def through(self, count: int, window: int) -> float:
        """Submit so many and wait until each is over; the seconds from the first submit to the last end."""
        began = time.perf_counter()
        left, unanswered, unfinished = count, 0, set[str]()
        while left or unanswered or unfinished:
            while left and unanswered < window:
                unfinished.add(self._submit()[1])
                left, unanswered = left - 1, unanswered + 1
            self._wait()
            unanswered -= sum(1 for _ in self._replies())
            unfinished.difference_update(self._ends())
        return time.perf_counter() - began

    def sustain(self, seconds: float, window: int) -> tuple[float, list[float]]:
        """For each job that ends, whosever it is, submit one: ends a second, and the seconds that each reply took."""
        took: list[float] = []
        sent: dict[str, float] = {}
        under_way = ended = 0
        for _ in self._ends():
            pass
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            while under_way < window:
                sent[self._submit()[0]] = time.perf_counter()
                under_way += 1
            self._wait()
            took += [time.perf_counter() - sent.pop(reply.request_id) for reply in self._replies()]
            over = sum(1 for _ in self._ends())
            ended, under_way = ended + over, under_way - over
        rate = ended / (time.perf_counter() - began)
        while sent:
            self._wait()
            for reply in self._replies():
                del sent[reply.request_id]
        return rate, took

    def ask(self, request: type[Any], **fields: Any) -> Any:
        """The reply to one request, while no other is under way."""
        said = request(request_id=secrets.token_hex(16), **fields)
        self._socket.send_multipart(encode(said))
        while True:
            self._wait()
            for reply in self._replies():
                return reply
            for _ in self._ends():
                pass

    def _submit(self) -> tuple[str, str]:
        """The ids of the request and of the job."""
        request_id, job_id = secrets.token_hex(16), str(uuid.uuid4())
        said = client.Submit(
            request_id=request_id, job_id=job_id, idempotency_key="", owner="bench", title="nothing", text="",
            template="", labels=(), priority=0, needs=NEEDS, pin="", deadline_ms=None, wait_for_worker=True, files=(),
            parts=(), workflow=json.dumps(workflow()).encode(), form=b"",
        )  # fmt: skip
        self._socket.send_multipart(encode(said))
        return request_id, job_id

    def _wait(self) -> None:
        """Until anything comes."""
        if not self._poller.poll(SILENCE_S * 1_000):
            raise SystemExit(f"bench: the broker said nothing for {SILENCE_S:g} s")

    def _replies(self) -> Iterator[Any]:
        """All that have come."""
        for frames in _all_of(self._socket):
            reply = decode(frames, BROKER_TO_CLIENT)
            if isinstance(reply, (client.Error, Invalid)):
                raise SystemExit(f"bench: the broker refused: {reply}")
            yield reply

    def _ends(self) -> Iterator[str]:
        """Ids of jobs that are over, by the events that have come. Of an event [topic, magic, type, header] only the
        job's state is looked at."""
        for frames in _all_of(self._events):
            job = msgpack.unpackb(frames[3])["job"]
            if job["state"] == JobState.SUCCEEDED:
                yield job["job_id"]
            elif job["state"] in OVER:
                raise SystemExit(f"bench: a job ended otherwise: {job}")

    def _await_news(self) -> None:
        """Submit a job and another until one is heard of: a subscription takes a moment to arrive."""
        while True:
            self.accept(1, 1)
            if self._events.poll(100):
                return


def _all_of(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    try:
        while True:
            yield socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return
