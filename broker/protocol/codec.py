"""bytes <-> messages: the one table of type bytes, the roles that may send them, and the caps.

Frames of a message: `[b"CF1", type (1 byte), header (msgpack map), *blobs]`; on a ROUTER a routing id stands before
them, on XPUB a topic. Decoding is total: any frames give a message or a RemoteProtocolError. No I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, get_type_hints

import msgpack

from broker.protocol import client, events, files, worker
from broker.protocol.errors import LocalProtocolError, RemoteProtocolError
from broker.protocol.schema import blob_rule, record, unique_pairs

MAGIC: Final = b"CF1"
#: Routing id or topic, magic, type, header, and at most four blobs.
MAX_FRAMES: Final = 8
MAX_HEADER_BYTES: Final = 1 << 20
#: A reply of the broker may name every worker there can be, at about 1 KiB each; jobs have a header's room beside them.
MAX_REPLY_BYTES: Final = 6 << 20

#: A type byte is for ever: never reuse one, append only.
TYPES: Final[dict[int, type[Any]]] = {
    0x01: worker.Announce,
    0x02: worker.Capabilities,
    0x03: worker.Ready,
    0x04: worker.Heartbeat,
    0x05: worker.Accepted,
    0x06: worker.ProgressReport,
    0x07: worker.Complete,
    0x08: worker.Fail,
    0x09: worker.Draining,
    0x0A: worker.Leave,
    0x0B: worker.Probed,
    0x20: worker.Welcome,
    0x21: worker.Refused,
    0x22: worker.Beat,
    0x23: worker.Dispatch,
    0x24: worker.Abandon,
    0x25: worker.CancelAttempt,
    0x26: worker.Recorded,
    0x27: worker.OutputsMissing,
    0x28: worker.Drain,
    0x29: worker.Probe,
    0x2A: worker.Restart,
    0x2F: worker.Invalid,
    0x40: client.Submit,
    0x41: client.Cancel,
    0x42: client.Retry,
    0x43: client.Get,
    0x44: client.List,
    0x45: client.Workers,
    0x46: client.Snapshot,
    0x47: client.Statistics,
    0x48: client.Story,
    0x49: client.Delete,
    0x4A: client.Load,
    0x50: client.Pause,
    0x51: client.Resume,
    0x52: client.DrainWorker,
    0x53: client.Pin,
    0x54: client.Reorder,
    0x55: client.ProbeWorker,
    0x56: client.RestartWorker,
    0x60: client.Done,
    0x61: client.Error,
    0x62: client.JobReply,
    0x63: client.JobsReply,
    0x64: client.WorkersReply,
    0x65: client.SnapshotReply,
    0x66: client.StatisticsReply,
    0x67: client.StoryReply,
    0x68: client.GroupReply,
    0x69: client.LoadReply,
    0x80: events.JobChanged,
    0x81: events.JobProgress,
    0x82: events.JobPreview,
    0x83: events.WorkerChanged,
    0x84: events.WorkerGone,
    0x85: events.StatsChanged,
    0x86: events.JobGone,
    0x87: events.Outlook,
    0xA0: files.PutFile,
    0xA1: files.SendFrom,
    0xA2: files.Chunk,
    0xA3: files.Have,
    0xA4: files.GetFile,
    0xA5: files.StatFile,
    0xA6: files.FileRefused,
}


def _range(low: int, high: int) -> frozenset[int]:
    return frozenset(tag for tag in TYPES if low <= tag < high)


#: What each role may send. A type outside its sender's role is FORBIDDEN, whatever it says.
WORKER_SENDS: Final = _range(0x01, 0x20)
BROKER_TO_WORKER: Final = _range(0x20, 0x40)
CLIENT_SENDS: Final = _range(0x40, 0x50)
ADMIN_SENDS: Final = _range(0x40, 0x60)
BROKER_TO_CLIENT: Final = _range(0x60, 0x80) | {0x2F}
EVENTS: Final = _range(0x80, 0xA0)
FILES_CLIENT_SENDS: Final = frozenset({0xA0, 0xA2, 0xA4, 0xA5})
FILES_BROKER_SENDS: Final = frozenset({0xA1, 0xA2, 0xA3, 0xA6, 0x2F})


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    tag: bytes
    kind: type[Any]
    write: Callable[[Any], dict[str, Any]]
    read: Callable[..., Any]
    blobs: tuple[tuple[str, int], ...]  # field name, most bytes


def _form(tag: int, kind: type[Any]) -> _Form:
    write, read = record(kind)
    hints = get_type_hints(kind, include_extras=True)
    rules = ((field.name, blob_rule(hints[field.name])) for field in dataclasses.fields(kind))
    return _Form(bytes([tag]), kind, write, read, tuple((name, rule.most) for name, rule in rules if rule))


_BY_KIND: Final[dict[type[Any], _Form]] = {kind: _form(tag, kind) for tag, kind in TYPES.items()}
_BY_TAG: Final[dict[int, _Form]] = {form.tag[0]: form for form in _BY_KIND.values()}
#: One for all threads, as making one costs more than a message: it calls nothing back, so none can run while it packs.
_PACKER: Final = msgpack.Packer(use_bin_type=True)


def encode(message: Any) -> list[bytes]:
    """The frames of a message. Raises LocalProtocolError for an object the contract does not know."""
    form = _BY_KIND.get(type(message))
    if form is None:
        raise LocalProtocolError(f"{type(message).__name__} is not a message of the contract")
    header = _PACKER.pack(form.write(message))
    return [MAGIC, form.tag, header, *[getattr(message, name) for name, _ in form.blobs]]


def decode(frames: Sequence[bytes], allowed: frozenset[int]) -> Any:
    """The message in these frames (without routing id or topic), checked field by field.

    Raises RemoteProtocolError for anything else, whatever the bytes.
    """
    if not 3 <= len(frames) < MAX_FRAMES:
        raise RemoteProtocolError("INVALID", f"{len(frames)} frames, want 3 to {MAX_FRAMES - 1}")
    if frames[0] != MAGIC:
        code = "VERSION" if frames[0][:2] == MAGIC[:2] and len(frames[0]) <= 8 else "INVALID"
        raise RemoteProtocolError(code, f"this side speaks {MAGIC.decode()}, not {bytes(frames[0][:8])!r}")
    form = _BY_TAG.get(frames[1][0]) if len(frames[1]) == 1 else None
    if form is None:
        raise RemoteProtocolError("UNKNOWN", f"no message type {bytes(frames[1][:8])!r}")
    if form.tag[0] not in allowed:
        raise RemoteProtocolError("FORBIDDEN", f"{form.kind.__name__} is not for this role")
    if len(frames) - 3 != len(form.blobs):
        raise RemoteProtocolError("INVALID", f"{form.kind.__name__} has {len(form.blobs)} blobs, not {len(frames) - 3}")
    most_bytes = MAX_REPLY_BYTES if form.tag[0] in BROKER_TO_CLIENT else MAX_HEADER_BYTES
    blobs = []
    for (name, most), blob in zip(form.blobs, frames[3:], strict=True):
        if len(blob) > most:
            raise RemoteProtocolError("INVALID", f"{form.kind.__name__}.{name}: {len(blob)} bytes, at most {most}")
        blobs.append(bytes(blob))
    return form.read(_unpack(frames[2], most_bytes), form.kind.__name__, *blobs)


def _unpack(header: bytes, most_bytes: int) -> Any:
    if len(header) > most_bytes:
        raise RemoteProtocolError("INVALID", f"a header of {len(header)} bytes, at most {most_bytes}")
    try:
        return msgpack.unpackb(
            header,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=unique_pairs,
            ext_hook=_no_ext,
            max_ext_len=0,
            max_str_len=64_000,
            max_bin_len=0,
            max_array_len=50_000,
            max_map_len=64,
        )
    except RemoteProtocolError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise RemoteProtocolError("INVALID", f"the header is not the msgpack this side reads: {e}"[:300]) from e


def _no_ext(code: int, _data: bytes) -> Any:
    raise RemoteProtocolError("INVALID", f"msgpack extension {code}")
