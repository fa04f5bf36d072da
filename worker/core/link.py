"""The worker's session with the broker: announce, room, heartbeats, and the ends that wait to be recorded. Pure.

Theory. A session is one process life; a reconnect announces the same session again with what it holds. The broker is
believed to be there only while it answers: silence for a lease means a new socket and a new announce, and what runs
goes on meanwhile, since only the broker's word (Abandon) takes an attempt away. Room is a level that is repeated, so
a lost Ready costs at most a heartbeat. An end is kept and repeated until Recorded, so a lost one costs seconds.

Never decides about an attempt: machine.py does. Time, randomness and the list of what is held are passed in.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Final

from broker.protocol.records import Gpu, Held
from broker.protocol.worker import Announce, Beat, Complete, Draining, Fail, Invalid, Leave, Ready, Refused, Welcome
from worker.core.asks import Key, NewSocket, Pulse, Send, Stop, StoreCapabilities

#: Until the broker says otherwise in Welcome.
HEARTBEAT_MS: Final = 2_000
LEASE_MS: Final = 10_000
#: An announce without answer is repeated on a new socket after this long; doubles, with jitter, up to the second.
ANNOUNCE_MS: Final = 1_000
ANNOUNCE_MAX_MS: Final = 5_000
#: An end that is not recorded is said again after this long.
REPEAT_MS: Final = 5_000


class State(enum.Enum):
    """Where the session stands."""

    NEW = "new"  # ComfyUI has neither answered nor failed to: nothing to announce yet
    ANNOUNCING = "announcing"
    JOINED = "joined"
    OVER = "over"  # left, or refused for good


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is, for its whole life."""

    worker: str
    session: str
    version: str
    labels: tuple[str, ...]
    #: It has a command that starts its ComfyUI anew.
    restartable: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What this worker is, as its ComfyUI told when it came up."""

    comfyui_version: str
    simulated: bool
    #: Digest of the capability document.
    capabilities: str | None
    gpu: Gpu


#: What it is while its ComfyUI has never answered.
UNKNOWN: Final = Facts(
    comfyui_version="", simulated=False, capabilities=None, gpu=Gpu(name="", kind="", vram_total_bytes=0)
)


@dataclasses.dataclass(slots=True)
class _Kept:
    message: Complete | Fail
    due_ms: int


class Link:
    def __init__(self, who: Identity, *, draw: Callable[[], float], held: Callable[[], tuple[Held, ...]]) -> None:
        """draw: uniform in [0, 1), for backoff. held: what the worker holds at the moment of the call."""
        self.state = State.NEW
        #: Ends not recorded yet, oldest first.
        self.ends: dict[Key, _Kept] = {}
        self._who = who
        self._draw = draw
        self._held = held
        self._facts = UNKNOWN
        self._heartbeat_ms = HEARTBEAT_MS
        self._lease_ms = LEASE_MS
        self._heard_ms = 0
        self._beat_due_ms = 0
        #: When to announce again, and how often in a row that was without success.
        self._announce_due_ms = 0
        self._tries = 0
        self._draining = False
        self._credits = 0
        #: The process life of the broker that spoke last, and the highest dispatch serial received from it.
        self._broker = ""
        self._seen = 0
        #: Of the newest Ready, and of the newest one before the last heartbeat.
        self._ready_serial = self._beat_serial = 0
        #: What the last Ready of this welcome said.
        self._told: tuple[int, int] | None = None

    @property
    def joined(self) -> bool:
        return self.state is State.JOINED

    @property
    def serves(self) -> bool:
        """Whether the broker knows this worker with its ComfyUI, which may be down again."""
        return self.joined and self._facts is not UNKNOWN

    def deadline_ms(self) -> int | None:
        """When tick must come at the latest."""
        match self.state:
            case State.ANNOUNCING:
                return self._announce_due_ms
            case State.JOINED:
                repeats = [kept.due_ms for kept in self.ends.values()]
                return min(self._beat_due_ms, self._heard_ms + self._lease_ms, *repeats)
        return None

    # ---- what happens to the session

    def introduce(self, asks: list[Any], facts: Facts, now_ms: int) -> None:
        """ComfyUI is up. Announce, or announce again when it is not what it was."""
        if self.state is State.OVER or facts == self._facts:
            return
        self._facts = facts
        self._announce(asks, now_ms)

    def introduce_alone(self, asks: list[Any], now_ms: int) -> None:
        """ComfyUI is not there. Announce without it, unless that is done: people must see what is wrong."""
        if self.state is State.NEW:
            self._announce(asks, now_ms)

    def received(self, asks: list[Any], message: Any, now_ms: int) -> None:
        """Any checked message of the broker, before whoever else it concerns."""
        if self.state in (State.NEW, State.OVER):
            return
        self._heard_ms = now_ms
        match message:
            case Welcome():
                self._welcome(asks, message, now_ms)
            case Beat(need_capabilities=needed, ready=ready):
                if needed:
                    asks.append(StoreCapabilities())
                if self.joined and ready < self._beat_serial:
                    self._ready(asks)
            case Refused(why=why, retry=retry):
                self._refused(asks, why, retry, now_ms)
            case Invalid(code="VERSION", detail=detail):
                self._stop(asks, f"the broker speaks another version of the protocol ({detail}): upgrade this worker")

    def tick(self, asks: list[Any], now_ms: int) -> None:
        if self.state is State.JOINED and now_ms - self._heard_ms >= self._lease_ms:
            self.state, self._announce_due_ms = State.ANNOUNCING, now_ms
        if self.state is State.ANNOUNCING and now_ms >= self._announce_due_ms:
            asks.append(NewSocket())
            self._announce(asks, now_ms)
        elif self.state is State.JOINED:
            self._beat(asks, now_ms)

    def drain(self, asks: list[Any]) -> None:
        """Take no more; said now and after every welcome."""
        if not self._draining:
            self._draining = True
            if self.joined:
                asks.append(Send(Draining()))

    def leave(self, asks: list[Any], why: str) -> None:
        """Say goodbye; the caller holds nothing that is not recorded."""
        if self.joined:
            asks.append(Send(Leave(why=why)))
        self._stop(asks, why, failed=False)

    # ---- what happens to attempts

    def dispatched(self, serial: int) -> None:
        self._seen = max(self._seen, serial)

    def room(self, asks: list[Any], credits: int, *, idle: bool) -> None:
        """The attempts this worker could take now; said when it changes, at once if its ComfyUI has nothing to do."""
        self._credits = 0 if self._draining else credits
        if self.joined and self._told != (self._credits, self._seen):
            self._ready(asks, can_wait=not idle)

    def ended(self, asks: list[Any], end: Complete | Fail, now_ms: int) -> None:
        """Keep an end, in place of any earlier one of the attempt, until `recorded`."""
        self.ends[end.job_id, end.attempt] = _Kept(end, now_ms + REPEAT_MS)
        if self.joined:
            asks.append(Send(end))

    def recorded(self, key: Key) -> None:
        """The end is on disk, or nobody wants it."""
        self.ends.pop(key, None)

    # ---- how

    def _announce(self, asks: list[Any], now_ms: int) -> None:
        self.state = State.ANNOUNCING
        asks.append(Send(self._introduction(self._facts)))
        wait_ms = min(ANNOUNCE_MAX_MS, ANNOUNCE_MS << min(self._tries, 8))
        self._announce_due_ms = now_ms + wait_ms // 2 + int(self._draw() * wait_ms / 2)
        self._tries += 1

    def _introduction(self, facts: Facts) -> Announce:
        return Announce(
            worker=self._who.worker,
            session=self._who.session,
            version=self._who.version,
            comfyui_version=facts.comfyui_version,
            simulated=facts.simulated,
            capabilities=facts.capabilities,
            gpu=facts.gpu,
            labels=self._who.labels,
            restartable=self._who.restartable,
            held=self._held(),
        )

    def _welcome(self, asks: list[Any], said: Welcome, now_ms: int) -> None:
        self.state = State.JOINED
        self._tries = 0
        self._heartbeat_ms, self._lease_ms = said.heartbeat_ms, said.lease_ms
        if said.broker != self._broker:
            self._broker, self._seen = said.broker, 0
        self._told = None
        self._beat_due_ms = now_ms
        if said.need_capabilities:
            asks.append(StoreCapabilities())
        if self._draining:
            asks.append(Send(Draining()))
        for kept in self.ends.values():
            kept.due_ms = now_ms
        if self._credits:
            self._ready(asks)
        self._beat(asks, now_ms)

    def _refused(self, asks: list[Any], why: str, retry: bool, now_ms: int) -> None:
        if not retry:
            asks.append(Send(Leave(why="refused")))  # so that the broker knows that this process lives
            self._stop(asks, f"the broker refuses this worker: {why}")
        elif self.joined:
            # It has restarted, or held us for lost. The first announce goes out at once, the next ones back off.
            self._announce(asks, now_ms)

    def _beat(self, asks: list[Any], now_ms: int) -> None:
        if now_ms >= self._beat_due_ms:
            self._beat_due_ms = now_ms + self._heartbeat_ms
            self._beat_serial = self._ready_serial
            asks.append(Pulse(self._held()))
        for kept in self.ends.values():
            if now_ms >= kept.due_ms:
                kept.due_ms = now_ms + REPEAT_MS
                asks.append(Send(kept.message))

    def _ready(self, asks: list[Any], *, can_wait: bool = False) -> None:
        self._ready_serial += 1
        self._told = (self._credits, self._seen)
        said = Ready(serial=self._ready_serial, credits=self._credits, seen=self._seen)
        asks.append(Send(said, can_wait))

    def _stop(self, asks: list[Any], why: str, *, failed: bool = True) -> None:
        self.state = State.OVER
        asks.append(Stop(why, failed))
