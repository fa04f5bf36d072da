"""Builds every ZeroMQ socket of the fleet, with the limits and the security that all of them share.

The context is an argument, so a gevent process passes a zmq.green one. Opens sockets, never reads or writes them: each
belongs to the one loop or greenlet that asked for it. With an Identity a socket speaks CURVE; the broker's sockets then
ask the gate (gate.py) about every key.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import zmq

from broker.protocol.errors import ConfigError
from broker.runtime.keys import Identity
from broker.runtime.settings import Network
from broker.runtime.values import host_of, is_loopback

S = TypeVar("S", bound=zmq.Socket[Any])

#: A peer that has not finished its handshake by then is dropped: half-open connections cannot pile up.
HANDSHAKE_MS: Final = 5_000
#: Transport heartbeats find dead links (no FIN, cable cut). They do not find a stuck peer: its I/O thread answers them.
LINK_BEAT_MS: Final = 2_000
LINK_DEAD_MS: Final = 6_000
#: How long a closing dealer may hold the process to send its last words.
GOODBYE_MS: Final = 500
_REBIND_S: Final = 2.0
#: As numbers: adding up zmq's flags, which are enums, takes longer than the send.
_NOW: Final = int(zmq.NOBLOCK)
_NOW_AND_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)


def router(context: zmq.Context[S], name: str, network: Network, identity: Identity | None) -> S:
    """A bound ROUTER: `name` is clients, workers or files, in [network] and as ZAP domain.

    A send to a peer that is gone raises ZMQError(EHOSTUNREACH); to one whose queue is full, with NOBLOCK, zmq.Again
    (without NOBLOCK it would hold the loop). A second connection with a routing id in use is ignored.
    """
    socket = context.socket(zmq.ROUTER)
    socket.router_mandatory = True
    socket.router_handover = False
    return _bound(socket, name, network, identity)


def publisher(context: zmq.Context[S], network: Network, identity: Identity | None) -> S:
    """The bound XPUB of events; a subscriber whose queue is full loses messages and nobody waits for it.

    Only the first subscription to a topic and the end of the last can be read from it: who watches at all.
    """
    return _bound(context.socket(zmq.XPUB), "events", network, identity)


def dealer(context: zmq.Context[S], name: str, network: Network, identity: Identity | None, routing_id: bytes) -> S:
    """A DEALER that dials the broker's `name` (clients, workers or files) for as long as it exists.

    routing_id: fresh for each process life. While no broker is connected a send raises zmq.Again (with NOBLOCK): what
    nobody takes is not kept for later. A refused handshake ends its life for good (libzmq does not try again): whoever
    has heard nothing for long closes it and makes another.
    """
    socket = context.socket(zmq.DEALER)
    socket.routing_id = routing_id
    socket.immediate = True
    socket.linger = GOODBYE_MS
    return _dialling(socket, name, network, identity)


def subscriber(context: zmq.Context[S], network: Network, identity: Identity | None, topics: Sequence[bytes]) -> S:
    """A SUB that dials the broker's events for as long as it exists. What is sent meanwhile is lost to it.

    As with a dealer, a refused handshake is the last: replace it after long silence.
    """
    socket = context.socket(zmq.SUB)
    socket.linger = 0
    for topic in topics:
        socket.subscribe(topic)
    return _dialling(socket, "events", network, identity)


def send(socket: zmq.Socket[Any], *frames: bytes) -> None:
    """All frames or none, at once. Raises zmq.Again when the transport takes none now, ZMQError as the socket does.

    A third of what zmq's own send_multipart costs. Not for a socket of zmq.green that others wait on.
    """
    *others, last = frames
    for frame in others:
        socket.send(frame, _NOW_AND_MORE)
    socket.send(last, _NOW)


def receive(socket: zmq.Socket[Any]) -> list[zmq.Frame]:
    """One message, at once, in two thirds of what zmq's own recv_multipart costs. Raises zmq.Again when none waits."""
    frames = [socket.recv(_NOW, copy=False)]
    while frames[-1].more:
        frames.append(socket.recv(_NOW, copy=False))
    return frames


def endpoint_of(socket: zmq.Socket[Any]) -> str:
    """Where a bound socket listens, with the port the kernel chose."""
    endpoint: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]  # bytes, for this option
    return endpoint.rstrip(b"\0").decode()


def key_of(frame: zmq.Frame) -> str | None:
    """The public key of whoever sent this frame, as the gate let it in; None without CURVE.

    Every frame of a message knows it, so the hot path may receive plain bytes and take one frame with copy=False where
    the sender's identity is decided.
    """
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return None


def rebind(socket: zmq.Socket[Any]) -> None:
    """Drop every connection of a bound socket; who is still allowed dials again within the reconnect interval.

    For a revoked key: libzmq asks the gate at the handshake only. Raises ConfigError when the port was taken meanwhile.
    """
    endpoint = endpoint_of(socket)
    socket.unbind(endpoint)
    deadline = time.monotonic() + _REBIND_S
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as e:
            # The I/O thread closes the old listener on its own time, mostly within a millisecond.
            if e.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                raise ConfigError(f"cannot listen on {endpoint} again: {_why(e)}") from e
            time.sleep(0.001)


def _why(error: zmq.ZMQError) -> str:
    return zmq.strerror(error.errno) if error.errno is not None else str(error)


def _limits(socket: zmq.Socket[Any], network: Network) -> None:
    socket.maxmsgsize = network.max_message_bytes
    socket.sndhwm = socket.rcvhwm = network.queue
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl = LINK_BEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = LINK_DEAD_MS


def _bound(socket: S, name: str, network: Network, identity: Identity | None) -> S:
    endpoint = _endpoint(socket, name, network, identity)
    _limits(socket, network)
    socket.linger = 0
    socket.backlog = 1_024  # a fleet of a thousand that reconnects at once
    if identity is not None:
        socket.curve_server = True
        socket.curve_secretkey = identity.secret.encode()
        socket.zap_domain = name.encode()
        # Without it libzmq lets every key in when no gate answers.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as e:
        socket.close()
        raise ConfigError(f"[network] {name} = {endpoint}: cannot listen there: {_why(e)}") from e
    return socket


def _dialling(socket: S, name: str, network: Network, identity: Identity | None) -> S:
    endpoint = _endpoint(socket, name, network, identity)
    if endpoint.endswith(":*"):
        socket.close()
        raise ConfigError(f"[network] {name} = {endpoint}: * is for the broker; name the port that its ready line says")
    _limits(socket, network)
    if name == "workers":
        socket.heartbeat_ivl = 0  # a worker's own heartbeat finds a dead link, and the broker pings it anyway
    socket.reconnect_ivl = network.reconnect_ms
    socket.reconnect_ivl_max = network.reconnect_max_ms
    socket.connect_timeout = HANDSHAKE_MS  # then the name is looked up again: the broker may have moved
    if identity is not None:
        socket.curve_publickey = identity.public.encode()
        socket.curve_secretkey = identity.secret.encode()
        socket.curve_serverkey = identity.broker.encode()
    socket.connect(endpoint)
    return socket


def _endpoint(socket: zmq.Socket[Any], name: str, network: Network, identity: Identity | None) -> str:
    """The endpoint of `name`. Never plain text past this machine, whatever the configuration let through."""
    endpoint: str = getattr(network, name)
    host = host_of(endpoint)
    if identity is None and not is_loopback(host):
        socket.close()
        raise ConfigError(f"[network] {name} = {endpoint}: not on loopback, so it needs [security] curve = yes")
    socket.ipv6 = ":" in host
    return endpoint
