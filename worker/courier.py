"""The worker's end of the file channel: any number of transfers over one socket, none of which is waited for.

Owns the socket. Whatever is lost on the way, or meets a broker that is not there, is begun again after a silence; a
socket on which nothing at all was heard for so long is replaced, since a connection that the broker's side ignores
looks like one that works.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import zmq

from broker.protocol.codec import FILES_BROKER_SENDS, decode, encode
from broker.protocol.errors import RemoteProtocolError
from broker.runtime import sockets
from broker.runtime.transfer import SILENCE_MS, Download, Transfer, Upload

#: Messages taken in one turn of the loop: 4 MiB of a download.
AT_ONCE: Final = 16
#: How soon a transfer tries again to begin while nobody is connected.
CONNECT_MS: Final = 200


class Courier:
    def __init__(self, dial: Callable[[], zmq.Socket[bytes]]) -> None:
        """dial: a new socket to the file channel, under a routing id of its own."""
        self.socket = dial()
        self._dial = dial
        #: When anything was heard on this socket, or when it was made.
        self._heard_ms = 0
        #: Transfers under way, and when each begins again if it is not heard of.
        self._due_ms: dict[Transfer, int] = {}

    def close(self) -> None:
        self.socket.close(linger=0)

    def upload(self, sha256: str, size_bytes: int, read: Callable[[int, int], bytes], now_ms: int) -> Upload:
        """Begin to store a file. read(offset, size_bytes) gives a part of it. Look at `over`; end it with `forget`."""
        upload = Upload(secrets.token_hex(16), sha256, size_bytes, read)
        self._begin(upload, now_ms)
        return upload

    def download(self, sha256: str, write: Callable[[bytes], object], max_bytes: int, now_ms: int) -> Download:
        """Begin to fetch a file. Look at `over`; end it with `forget`."""
        download = Download(secrets.token_hex(16), sha256, write, max_bytes=max_bytes)
        self._begin(download, now_ms)
        return download

    def forget(self, transfer: Transfer) -> None:
        self._due_ms.pop(transfer, None)

    def receive(self, now_ms: int) -> bool:
        """Take what has arrived, up to a bound. Answers whether it concerned anybody."""
        concerned = False
        for _ in range(AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._heard_ms = now_ms
            try:
                message = decode(frames, FILES_BROKER_SENDS)
            except RemoteProtocolError:
                continue  # as good as lost
            for transfer in self._due_ms:
                if transfer.knows(message):
                    self._due_ms[transfer] = now_ms + SILENCE_MS
                    self._move(transfer, partial(transfer.feed, message))
                    concerned = True
                    break
        return concerned

    def tick(self, now_ms: int) -> None:
        due = [transfer for transfer, due_ms in self._due_ms.items() if not transfer.over and now_ms >= due_ms]
        if due and now_ms - self._heard_ms >= SILENCE_MS:
            self.socket.close(linger=0)
            self.socket = self._dial()
            self._heard_ms = now_ms
            due = [transfer for transfer in self._due_ms if not transfer.over]
        for transfer in due:
            self._begin(transfer, now_ms)

    def deadline_ms(self) -> int | None:
        waiting = (due_ms for transfer, due_ms in self._due_ms.items() if not transfer.over)
        return min(waiting, default=None)

    def _begin(self, transfer: Transfer, now_ms: int) -> None:
        if self.socket.poll(0, zmq.POLLOUT):
            self._due_ms[transfer] = now_ms + SILENCE_MS
            self._move(transfer, transfer.begin)
        else:
            self._due_ms[transfer] = now_ms + CONNECT_MS

    def _move(self, transfer: Transfer, step: Callable[[], list[Any]]) -> None:
        try:
            messages = step()
        except OSError as e:  # a full disk here ends this transfer, not the worker
            transfer.fault = e
            return
        for message in messages:
            try:
                sockets.send(self.socket, *encode(message))
            except zmq.Again:
                return  # no broker, or a full queue: the silence that follows begins it again
