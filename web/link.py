"""Requests to the broker and their replies: one DEALER, any number of greenlets that wait.

Checks each request against the contract before it leaves, so that no stranger's value can make the broker refuse us.
Owns its socket: one greenlet receives, `ask` sends without blocking. A silent broker gets a fresh socket and session.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final, TypeVar

import gevent
import zmq.green as zmq
from gevent.event import AsyncResult

from broker.protocol import client, codec
from broker.protocol.errors import RemoteProtocolError
from broker.protocol.worker import Invalid
from broker.runtime import sockets
from broker.runtime.clock import now
from broker.runtime.keys import Identity
from broker.runtime.settings import Network

log = logging.getLogger(__name__)
R = TypeVar("R")

#: Requests that may wait for their reply at once; more are turned away at once instead of piling up.
MAX_WAITING: Final = 1_000
_TRY_AGAIN_S: Final = 0.02


class BrokerSilent(Exception):
    """No reply in time: the broker is away or busy. What was asked may or may not have been done."""


class BrokerRefused(Exception):
    """The broker's answer is an error; nothing was changed."""

    def __init__(self, error: client.Error) -> None:
        super().__init__(error.text)
        self.error = error


class OutOfContract(Exception):
    """The request cannot be said in the contract: a value is too long or out of its range. Nothing was sent."""


class Link:
    def __init__(
        self, context: zmq.Context[Any], network: Network, identity: Identity | None, *, reply_ms: int
    ) -> None:
        self._context = context
        self._network = network
        self._identity = identity
        self._reply_ms = reply_ms
        self._waiting: dict[str, AsyncResult[Any]] = {}
        self._heard_ms = 0
        self._socket: Any = None
        self._receiver: gevent.Greenlet[..., None] | None = None
        self._open()

    def ask(self, reply: type[R], request: type[Any], **fields: Any) -> R:
        """The reply to `request(**fields)`. Raises BrokerSilent, BrokerRefused, OutOfContract."""
        if len(self._waiting) >= MAX_WAITING:
            raise BrokerSilent("too many requests wait for the broker")
        request_id = secrets.token_hex(16)
        frames = codec.encode(request(request_id=request_id, **fields))
        try:
            codec.decode(frames, codec.ADMIN_SENDS)
        except RemoteProtocolError as e:
            raise OutOfContract(e.detail) from e
        waiting: AsyncResult[Any] = AsyncResult()
        self._waiting[request_id] = waiting
        asked_ms, asked_on = now().monotonic_ms, self._socket
        try:
            with gevent.Timeout(self._reply_ms / 1000, BrokerSilent("the broker did not answer in time")):
                self._send(frames)
                found = waiting.get()
        except BrokerSilent:
            if self._heard_ms < asked_ms and self._socket is asked_on:
                self._renew()
            raise
        finally:
            del self._waiting[request_id]
        if isinstance(found, client.Error):
            raise BrokerRefused(found)
        if not isinstance(found, reply):
            raise BrokerSilent(f"the broker answered with {type(found).__name__}, not {reply.__name__}")
        return found

    def close(self) -> None:
        if self._receiver is not None:
            self._receiver.kill()
        self._socket.close()

    def _open(self) -> None:
        session = secrets.token_hex(16).encode()
        self._socket = sockets.dealer(self._context, "clients", self._network, self._identity, session)
        self._receiver = gevent.spawn(self._receive, self._socket)

    def _renew(self) -> None:
        log.warning("the broker is silent: dialling it again")
        self.close()
        self._open()

    def _send(self, frames: list[bytes]) -> None:
        # Not the socket's own waiting send: it allows one waiting greenlet, and this one may be many.
        while True:
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK)
                return
            except zmq.Again:
                gevent.sleep(_TRY_AGAIN_S)

    def _receive(self, socket: Any) -> None:
        while True:
            frames = socket.recv_multipart()
            self._heard_ms = now().monotonic_ms
            try:
                message = codec.decode(frames, codec.BROKER_TO_CLIENT)
            except RemoteProtocolError as e:
                log.error("cannot read the broker's reply", extra={"fields": {"why": str(e)}})
                continue
            if isinstance(message, Invalid):
                log.error("the broker refuses our messages", extra={"fields": {"why": message.detail}})
                for waiting in self._waiting.values():
                    waiting.set_exception(BrokerSilent(f"the broker refuses this server: {message.detail}"))
            elif message.request_id in self._waiting:
                self._waiting[message.request_id].set(message)
