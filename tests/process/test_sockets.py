"""The sockets as built: what they refuse, what they drop, and that they never hold their owner up."""

from __future__ import annotations

import socket as plain
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import zmq

from broker.protocol.errors import ConfigError
from broker.runtime import sockets
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from tests.process.door import ANY_PORT

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]
LONG_MS = 15_000


class Fleet:
    """A context, and the sockets a test has made in it."""

    def __init__(self) -> None:
        self.context: Context = zmq.Context()
        self._made: list[Socket] = []

    def router(self, network: Network = ANY_PORT) -> Socket:
        return self._keep(sockets.router(self.context, "workers", network, None))

    def dealer(self, network: Network, routing_id: bytes) -> Socket:
        return self._keep(sockets.dealer(self.context, "workers", network, None, routing_id))

    def publisher(self, network: Network) -> Socket:
        return self._keep(sockets.publisher(self.context, network, None))

    def subscriber(self, network: Network, topic: bytes) -> Socket:
        return self._keep(sockets.subscriber(self.context, network, None, [topic]))

    def close(self) -> None:
        for socket in self._made:
            socket.close(linger=0)
        self.context.term()

    def _keep(self, socket: Socket) -> Socket:
        self._made.append(socket)
        return socket


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
def workers(fleet: Fleet) -> Socket:
    return fleet.router()


def dialling(router: Socket) -> Network:
    return Network(workers=sockets.endpoint_of(router))


def test_every_limit_is_set(fleet: Fleet, workers: Socket) -> None:
    network = replace(dialling(workers), max_message_bytes=1 << 20, queue=77, reconnect_ms=50, reconnect_max_ms=900)
    dealer = fleet.dealer(network, b"one")
    for socket in (workers, dealer):
        assert socket.handshake_ivl == 5_000
        assert (socket.heartbeat_timeout, socket.heartbeat_ttl) == (6_000, 6_000)
    assert (workers.heartbeat_ivl, dealer.heartbeat_ivl) == (2_000, 0), "who is pinged need not ping"
    assert (workers.linger, workers.maxmsgsize, workers.sndhwm, workers.rcvhwm) == (0, 8 << 20, 1_000, 1_000)
    assert (dealer.maxmsgsize, dealer.sndhwm, dealer.rcvhwm) == (1 << 20, 77, 77)
    assert (dealer.reconnect_ivl, dealer.reconnect_ivl_max) == (50, 900)


def test_a_send_to_nobody_is_an_error(workers: Socket) -> None:
    with pytest.raises(zmq.ZMQError) as caught:
        workers.send_multipart([b"nobody", b"x"], zmq.NOBLOCK)
    assert caught.value.errno == zmq.EHOSTUNREACH


def test_a_routing_id_in_use_cannot_be_taken(fleet: Fleet, workers: Socket) -> None:
    first = fleet.dealer(dialling(workers), b"same")
    assert first.poll(LONG_MS, zmq.POLLOUT)
    first.send(b"first")
    assert workers.recv_multipart() == [b"same", b"first"]
    second = fleet.dealer(dialling(workers), b"same")
    assert second.poll(LONG_MS, zmq.POLLOUT)
    second.send(b"second")
    workers.send_multipart([b"same", b"for the first"])
    assert first.poll(LONG_MS)
    assert first.recv() == b"for the first"
    assert not workers.poll(0)
    assert not second.poll(0)


def test_a_frame_over_the_limit_cuts_its_sender_off(fleet: Fleet) -> None:
    router = fleet.router(replace(ANY_PORT, max_message_bytes=1 << 20))
    dealer = fleet.dealer(dialling(router), b"big")
    assert dealer.poll(LONG_MS, zmq.POLLOUT)
    with dealer.get_monitor_socket(int(zmq.Event.DISCONNECTED)) as monitor:
        dealer.send(b"x" * ((1 << 20) + 1))
        assert monitor.poll(LONG_MS)
        assert not router.poll(0)
        dealer.disable_monitor()


def test_without_a_broker_a_send_says_so_and_nothing_is_kept(fleet: Fleet) -> None:
    with plain.socket() as held:
        held.bind(("127.0.0.1", 0))  # a port where nobody listens
        network = Network(workers=f"tcp://127.0.0.1:{held.getsockname()[1]}", reconnect_ms=20)
        dealer = fleet.dealer(network, b"one")
        with pytest.raises(zmq.Again):
            dealer.send(b"lost", zmq.NOBLOCK)
    router = fleet.router(network)
    assert dealer.poll(LONG_MS, zmq.POLLOUT)
    dealer.send(b"heard")
    assert router.poll(LONG_MS)
    assert router.recv_multipart() == [b"one", b"heard"]


def test_a_port_that_is_taken_and_an_address_that_is_not_ours(fleet: Fleet, workers: Socket) -> None:
    with pytest.raises(
        ConfigError, match=r"^\[network\] workers = tcp://127.* cannot listen there: Address already in use$"
    ):
        fleet.router(dialling(workers))
    public, secret = (half.decode() for half in zmq.curve_keypair())
    elsewhere = Network(workers="tcp://203.0.113.1:*")
    with pytest.raises(ConfigError, match=r"cannot listen there: Cannot assign requested address$"):
        sockets.router(fleet.context, "workers", elsewhere, Identity(public, secret, public))


def test_nobody_can_dial_any_port(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match=r"\* is for the broker; name the port that its ready line says"):
        fleet.subscriber(ANY_PORT, b"")


def test_ipv6_loopback(fleet: Fleet) -> None:
    if not plain.has_ipv6:
        pytest.skip("built without IPv6")
    try:
        with plain.socket(plain.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    router = fleet.router(Network(workers="tcp://[::1]:*"))
    dealer = fleet.dealer(dialling(router), b"six")
    assert dealer.poll(LONG_MS, zmq.POLLOUT)
    dealer.send(b"hello")
    assert router.poll(LONG_MS)
    assert router.recv_multipart() == [b"six", b"hello"]


def test_a_slow_watcher_loses_events_and_holds_nobody_up(fleet: Fleet) -> None:
    network = replace(ANY_PORT, queue=16)
    publisher = fleet.publisher(network)
    watcher = fleet.subscriber(replace(network, events=sockets.endpoint_of(publisher)), b"a")
    assert publisher.poll(LONG_MS)
    assert publisher.recv() == b"\x01a"
    sent = 2_000
    for number in range(sent):
        publisher.send_multipart([b"a", b"%d" % number, b"x" * 50_000], zmq.NOBLOCK)
    assert watcher.poll(LONG_MS)
    got = [watcher.recv_multipart()[1]]
    while watcher.poll(100):
        got.append(watcher.recv_multipart()[1])
    assert got[0] == b"0"
    assert len(got) < sent


GREEN = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys
import zmq.green as zmq
from broker.runtime import sockets
from broker.runtime.settings import Network
dealer = sockets.dealer(zmq.Context(), "workers", Network(workers=sys.argv[1]), None, b"green")
dealer.send(b"hello")
gevent.spawn(print, "another greenlet runs while this one waits", flush=True)
print(dealer.recv().decode(), flush=True)
"""


def test_a_green_context_gives_green_sockets(workers: Socket) -> None:
    command = [sys.executable, "-c", GREEN, sockets.endpoint_of(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert workers.poll(LONG_MS)
        assert workers.recv_multipart() == [b"green", b"hello"]
        assert process.stdout.readline() == "another greenlet runs while this one waits\n"
        workers.send_multipart([b"green", b"answer"])
        assert process.stdout.read() == "answer\n"
    assert process.returncode == 0
