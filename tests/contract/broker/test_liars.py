"""Workers that lie, over the wire: they are refused and named, and whoever works beside them goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import pytest
import zmq

from broker.protocol.client import JobReply, Statistics, Workers
from broker.protocol.codec import BROKER_TO_CLIENT, BROKER_TO_WORKER, decode, encode
from broker.protocol.records import BreakerState
from broker.protocol.worker import Capabilities, Dispatch, Heartbeat, Invalid, Ready, Welcome
from broker.runtime import keys
from broker.runtime.config import Config
from tests.contract.broker.test_server import LONG_MS, answer, dialled, of, serving
from tests.core.broker.given import NEEDS, STATS, Given, Session, submit_of

Socket = zmq.Socket[bytes]
BEAT = Heartbeat(stats=STATS, held=())


def lie(message: Any, *path: str, value: Any) -> list[bytes]:
    """The frames of a message with something in its header that its own types would not let in."""
    magic, tag, header, *blobs = encode(message)
    fields = inner = msgpack.unpackb(header)
    for key in path[:-1]:
        inner = inner[key]
    assert path[-1] in inner
    inner[path[-1]] = value
    return [magic, tag, msgpack.packb(fields), *blobs]


def of_stats(name: str, value: Any) -> Callable[[Session], list[bytes]]:
    return lambda _: lie(BEAT, "stats", name, value=value)


def offering(**lists: Any) -> Callable[[Session], list[bytes]]:
    def said(liar: Session) -> list[bytes]:
        offer = Capabilities(digest=liar.capabilities, nodes=("KSampler",), models=())
        ((name, value),) = lists.items()
        return lie(offer, name, value=value)

    return said


#: name -> (what it says, what the refusal names).
LIES: dict[str, tuple[Callable[[Session], list[bytes]], str]] = {
    "10^18 bytes of free VRAM": (of_stats("vram_free_bytes", 10**18), "vram_free_bytes"),
    "a disk with less than nothing": (of_stats("disk_free_bytes", -1), "disk_free_bytes"),
    "a card that is busy nan": (of_stats("gpu_busy", float("nan")), "gpu_busy"),
    "a card that is busy inf": (of_stats("gpu_busy", float("inf")), "gpu_busy"),
    "a card that is busy 9 times": (of_stats("gpu_busy", 9.0), "gpu_busy"),
    "a processor that is busy nan": (of_stats("cpu_busy", float("nan")), "cpu_busy"),
    "10^6 models": (offering(models=["m"] * 10**6), "header"),
    "more models than one may tell": (offering(models=["m"] * 20_001), "models"),
    "models that are no list": (offering(models=7), "models"),
    "nodes without names": (offering(nodes=[None]), "nodes"),
    "a card of 10^18 bytes": (
        lambda liar: lie(liar.introduction(), "gpu", "vram_total_bytes", value=10**18), "vram_total_bytes",
    ),
    "a digest that is none": (lambda liar: lie(liar.introduction(), "capabilities", value="x"), "capabilities"),
}  # fmt: skip


class Stage:
    """A server with one worker that will lie, one that will not, and a client."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        network = stack.enter_context(serving(config))
        given = Given()
        self.liar, self.honest = given.worker("gpu-1"), given.worker("gpu-2", capabilities="a" * 64)
        sessions = (self.liar, self.honest)
        self.lying, self.working = (
            stack.enter_context(dialled("workers", network, of(config, one.name), one.session)) for one in sessions
        )
        self.web = stack.enter_context(dialled("clients", network, of(config, "web"), "f" * 32))
        assert isinstance(answer(self.lying, self.liar.introduction(), BROKER_TO_WORKER), Welcome)

    def asks(self, message: Any) -> Any:
        return answer(self.web, message, BROKER_TO_CLIENT)

    def works(self) -> None:
        """A job comes, and the other worker is given it."""
        assert isinstance(self.asks(submit_of(1)), JobReply)
        offer = Capabilities(digest=self.honest.capabilities, nodes=NEEDS.nodes, models=())
        for message in (self.honest.introduction(), offer, Ready(serial=1, credits=1, seen=0)):
            self.working.send_multipart(encode(message))
        while not isinstance(said := heard(self.working), Dispatch):
            assert isinstance(said, Welcome)
        assert said.job_id == submit_of(1).job_id


def heard(socket: Socket) -> Any:
    assert socket.poll(LONG_MS)
    return decode(socket.recv_multipart(), BROKER_TO_WORKER)


@pytest.fixture
def stage(config: Config) -> Iterator[Stage]:
    keys.make_peer(config, "worker", "gpu-2", None)
    with ExitStack() as stack:
        yield Stage(config, stack)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_by_name_and_stops_nobody(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    said, named = LIES[name]
    with caplog.at_level(logging.WARNING, "broker.server"):
        stage.lying.send_multipart(said(stage.liar))
        refused = heard(stage.lying)
        assert isinstance(refused, Invalid) and refused.code == "INVALID" and named in refused.detail
    (line,) = [record for record in caplog.records if record.message == "refused a message"]
    told: dict[str, Any] = vars(line)["fields"]
    assert told["worker"] == "gpu-1" and named in told["why"]
    assert stage.asks(Statistics(request_id="a" * 32)).stats.invalid_messages == 1
    stage.works()
    views = {view.worker: view for view in stage.asks(Workers(request_id="b" * 32)).workers}
    assert views["gpu-1"].stats is None and views["gpu-1"].breaker.state is BreakerState.CLOSED


def test_a_message_too_large_to_be_read_stops_nobody(stage: Stage) -> None:
    stage.lying.send_multipart(offering(models=[f"checkpoints/{n}" for n in range(10**6)])(stage.liar))
    stage.works()


def test_a_worker_that_claims_the_most_there_is_and_can_do_nothing_gets_nothing(stage: Stage) -> None:
    liar = stage.liar
    for number in range(200):
        liar.capabilities, liar.vram_bytes = f"{number:064x}", 2**53
        offer = Capabilities(digest=liar.capabilities, nodes=(), models=())
        for message in (liar.introduction(), offer, Ready(serial=number, credits=2**31, seen=0), BEAT):
            stage.lying.send_multipart(encode(message))
    stage.works()
    said = [heard(stage.lying)]
    while stage.lying.poll(0):
        said.append(heard(stage.lying))
    assert not any(isinstance(message, Dispatch) for message in said)
