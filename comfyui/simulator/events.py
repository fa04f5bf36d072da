"""The WebSockets of a simulator: who is connected, and one loop that sends every message in order.

It decides nothing about what is said. Two faults of the real server are on unless switched off: a socket whose id was
taken over by a newer one takes that one's entry with it when it closes, and one reader that stops reading holds up
everybody. Each message is encoded once for all receivers. The sockets themselves belong to their request handlers.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from struct import pack
from typing import Any

from aiohttp import ClientError, web

#: Binary messages begin with their kind, big-endian: a preview alone, or one with metadata before the picture.
PREVIEW = 1
PREVIEW_WITH_METADATA = 4
#: How a preview without metadata names its picture's format.
FORMATS = {"JPEG": 1, "PNG": 2}


@dataclass
class Socket:
    """One open connection."""

    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    #: What the client said it can do in its feature_flags message.
    flags: dict[str, Any] = field(default_factory=dict)
    #: Messages for this socket alone, where a slow reader may not hold up the others.
    outbox: asyncio.Queue[str | bytes] = field(default_factory=asyncio.Queue)


class Sockets:
    """Client id → socket, and the queue of messages to send."""

    def __init__(self, deaf_after_overlap: bool = True, slow_reader_stalls_all: bool = True) -> None:
        self._deaf_after_overlap = deaf_after_overlap
        self._slow_reader_stalls_all = slow_reader_stalls_all
        self._sockets: dict[str, Socket] = {}
        self._messages: asyncio.Queue[tuple[str | bytes, str | None]] = asyncio.Queue()
        #: True while the mischief "silent" lasts.
        self.silent = False

    def add(self, client_id: str, socket: Socket) -> None:
        self._sockets[client_id] = socket

    def remove(self, client_id: str, socket: Socket) -> None:
        """The handler of this socket ends."""
        if self._deaf_after_overlap or self._sockets.get(client_id) is socket:
            self._sockets.pop(client_id, None)

    def supports(self, client_id: str | None, feature: str) -> bool:
        """Whether the client with this id is connected and said it has the feature."""
        socket = self._sockets.get(client_id) if client_id is not None else None
        return socket is not None and bool(socket.flags.get(feature))

    def send(self, kind: str, data: Any, client_id: str | None) -> None:
        """Queues a JSON message for one client, or for everybody when client_id is None."""
        self._messages.put_nowait((json.dumps({"type": kind, "data": data}), client_id))

    def send_preview(self, picture: bytes, kind: str, metadata: dict[str, Any] | None, client_id: str | None) -> None:
        """Queues a picture ("JPEG" or "PNG"), in the form with metadata when some is given."""
        if metadata is None:
            self._messages.put_nowait((pack(">II", PREVIEW, FORMATS[kind]) + picture, client_id))
            return
        text = json.dumps(metadata | {"image_type": f"image/{kind.lower()}"}).encode()
        self._messages.put_nowait((pack(">II", PREVIEW_WITH_METADATA, len(text)) + text + picture, client_id))

    async def tell(self, kind: str, data: Any, socket: Socket) -> None:
        """Sends a JSON message to one socket at once, ahead of the queue: greetings and answers."""
        await self._write(socket, json.dumps({"type": kind, "data": data}))

    async def publish(self) -> None:
        """Sends what is queued, for ever."""
        while True:
            message, client_id = await self._messages.get()
            if client_id is None:
                targets = list(self._sockets.values())
            else:
                targets = [self._sockets[client_id]] if client_id in self._sockets else []
            for socket in targets:
                if self._slow_reader_stalls_all:
                    await self._write(socket, message)
                else:
                    socket.outbox.put_nowait(message)

    async def write_own(self, socket: Socket) -> None:
        """Sends what is in one socket's own outbox, for ever; needed only where slow readers hold up nobody."""
        while not self._slow_reader_stalls_all:
            await self._write(socket, await socket.outbox.get())

    async def _write(self, socket: Socket, message: str | bytes) -> None:
        if self.silent:
            return
        with suppress(ClientError, ConnectionError, RuntimeError):  # it closed meanwhile; its handler cleans up
            if isinstance(message, str):
                await socket.ws.send_str(message)
            else:
                await socket.ws.send_bytes(message)

    def cut(self) -> None:
        """Ends every connection without a close handshake."""
        for socket in self._sockets.values():
            if socket.transport is not None:
                socket.transport.abort()
