"""Work of many steps that must not hold the loop: files into ComfyUI, outputs to the broker.

An errand is a generator. A turn of the loop takes it to its next `yield`, at most one call to ComfyUI further; what it
yields is how many milliseconds it sleeps (0: go on next turn), or NEWS: until the file channel brings something. Its
files are spooled on this machine and are gone when it is closed.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import IO, Final, Self, TypeVar

from broker.protocol.records import InputFile, Output, Reason
from broker.runtime.transfer import Transfer
from comfyui.client import ComfyClient
from comfyui.errors import ComfyFailed, ComfyRejected, ComfyUnreachable
from comfyui.outputs import OutputFile
from comfyui.wire import PIECE_BYTES
from comfyui.words import plain
from worker.core.asks import FromComfy, Source
from worker.core.inputs import upload_name
from worker.core.media import media_type, whole
from worker.courier import Courier

T = TypeVar("T")
#: Sleep until there are news on the file channel.
NEWS: Final = -1
#: It yields milliseconds, or NEWS.
Errand = Generator[int, None, None]

#: After the broker had no room for a file, or ComfyUI no answer.
AGAIN_MS: Final = 2_000
#: How often ComfyUI is asked for the same thing.
TRIES: Final = 2
#: Smaller files never touch the disk.
IN_MEMORY_BYTES: Final = 8 << 20
CHUNK_BYTES: Final = 256 << 10
#: Refusals that pass: the result is kept until there is room.
PASSING: Final = frozenset({"full", "busy"})

log = logging.getLogger(__name__)


class ErrandFailed(Exception):
    """It cannot be done; the text says why."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Spool:
    """A file on its way, measured as it is written. Owns it, in memory or on this machine's disk."""

    def __init__(self) -> None:
        # Closed with the spool, whose own life is a `with` block.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def read(self, offset: int, size_bytes: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size_bytes)


class Porter:
    """Carries files between the file channel and one ComfyUI."""

    def __init__(
        self,
        comfy: ComfyClient,
        courier: Courier,
        *,
        max_file_bytes: int,
        now_ms: Callable[[], int],
        breathe: Callable[[], None],
    ) -> None:
        """breathe: lets the loop do what cannot wait, in the middle of a long call."""
        self._comfy = comfy
        self._courier = courier
        self._max_bytes = max_file_bytes
        self._now_ms = now_ms
        self._breathe = breathe
        #: How often ComfyUI may have been started anew.
        self._lives = 0

    def anew(self) -> None:
        """ComfyUI may have been started anew, perhaps on an empty disk."""
        self._lives += 1

    # ---- into ComfyUI

    def stage(self, files: tuple[InputFile, ...], moving: Callable[[], None]) -> Generator[int, None, dict[str, str]]:
        """Bring files into the input folder; returns what each is called there. Raises: ErrandFailed.

        Whether ComfyUI has them is asked each time: that folder only grows, so people clear it.
        """
        while True:
            life = self._lives
            #: The name they are sent under -> what a workflow calls them.
            there: dict[str, str] = {}
            for file in files:
                name = upload_name(file)
                if name not in there:
                    known = yield from self._patiently(partial(self._comfy.has_input, name, file.size_bytes))
                    there[name] = name if known else (yield from self._bring(file, name, moving))
            if life == self._lives:
                return {file.name: there[upload_name(file)] for file in files}

    def _bring(self, file: InputFile, name: str, moving: Callable[[], None]) -> Generator[int, None, str]:
        with Spool() as spool:
            download = self._courier.download(file.sha256, spool.write, self._max_bytes, self._now_ms())
            yield from self._carried(download, moving)
            if download.failure is not None:
                raise ErrandFailed(Reason.INPUT_MISSING, f"the file {file.name} cannot be had: {download.failure}")

            def send() -> str:
                return self._comfy.upload(name, self._breathing(spool), size_bytes=spool.size_bytes)

            try:
                return (yield from self._patiently(send))
            except ComfyRejected as e:
                raise ErrandFailed(Reason.INPUT_MISSING, str(e)) from e

    def _breathing(self, spool: Spool) -> Iterator[bytes]:
        for offset in range(0, spool.size_bytes, CHUNK_BYTES):
            self._breathe()
            yield spool.read(offset, CHUNK_BYTES)

    # ---- out of ComfyUI

    def deliver(self, sources: tuple[Source, ...], *, surely: bool) -> Generator[int, None, tuple[Output, ...]]:
        """Store outputs with the broker; returns them once all are durable or, unless surely, small ones have left.

        Raises: ErrandFailed.
        """
        outputs: list[Output] = []
        for source in sources:
            with Spool() as spool:
                if isinstance(source, FromComfy):
                    yield from self._fetch(source.file, spool)
                    node_id, name, kind = source.file.node_id, source.file.filename, source.file.folder
                else:
                    spool.write(source.data)
                    node_id, name, kind = source.node_id, source.name, "socket"
                yield from self._store(spool, surely=surely)
                outputs.append(
                    Output(
                        node_id=plain(node_id, 200),
                        name=plain(name, 200),
                        kind=kind,
                        media_type=media_type(spool.read),
                        sha256=spool.sha256,
                        size_bytes=spool.size_bytes,
                    )
                )
        return tuple(outputs)

    def store(self, data: bytes) -> Errand:
        """Store bytes that are at hand. Raises: ErrandFailed."""
        with Spool() as spool:
            spool.write(data)
            yield from self._store(spool, surely=True)

    def _fetch(self, file: OutputFile, spool: Spool) -> Errand:
        """A file of ComfyUI's into the spool, a piece a turn; once more if it came cut."""
        fault = ""
        for _ in range(TRIES):
            spool.clear()
            try:
                for piece in self._comfy.view(file, limit_bytes=self._max_bytes):
                    spool.write(piece)
                    if len(piece) == PIECE_BYTES:  # a smaller one is the last
                        yield 0
            except ComfyFailed as e:
                raise ErrandFailed(Reason.OUTPUT_LOST, str(e)) from e
            except ComfyUnreachable as e:
                fault = str(e)
            else:
                if whole(spool.read, spool.size_bytes):
                    return
                fault = "it ends in the middle"
            log.warning("output came cut", extra={"fields": {"name": file.filename, "fault": fault}})
            yield AGAIN_MS
        raise ErrandFailed(Reason.OUTPUT_LOST, f"the output {plain(file.filename, 200)} cannot be had: {fault}")

    def _store(self, spool: Spool, *, surely: bool) -> Errand:
        while True:
            upload = self._courier.upload(spool.sha256, spool.size_bytes, spool.read, self._now_ms())
            if upload.launched and not surely:
                self._courier.forget(upload)
                return
            yield from self._carried(upload, lambda: None)
            if upload.failure is None:
                return
            if upload.failure.code not in PASSING:
                raise ErrandFailed(Reason.OUTPUT_LOST, f"the broker does not store it: {upload.failure}")
            yield AGAIN_MS

    # ---- either way

    def _carried(self, transfer: Transfer, moving: Callable[[], None]) -> Errand:
        """Until a transfer is over. Raises OSError when this machine cannot read or write the file."""
        try:
            offset = 0
            while not transfer.over:
                if transfer.offset != offset:
                    offset = transfer.offset
                    moving()
                yield NEWS
            if transfer.fault is not None:
                raise transfer.fault
        finally:
            self._courier.forget(transfer)

    def _patiently(self, call: Callable[[], T]) -> Generator[int, None, T]:
        """A call to ComfyUI, made again if there is no answer. Raises: ErrandFailed."""
        for _ in range(TRIES):
            yield 0
            try:
                return call()
            except ComfyUnreachable as e:
                fault = str(e)
                yield AGAIN_MS
        raise ErrandFailed(Reason.COMFY_UNREACHABLE, fault)
