"""What ComfyUI's HTTP answers mean, from bytes to frozen dataclasses.

Total over hostile answers: each function gives its value or raises ReplyError, nothing else. Fields that only later
or earlier versions know may be missing; unknown ones are ignored. Pure; comfyui/client.py makes the calls.
"""

import enum
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comfyui.messages import ExecutionError, MessageError, execution_error
from comfyui.outputs import OutputFile, OutputsError, output_files
from comfyui.words import node_faults, plain

ITEMS: Final = 100_000  # prompts read from one queue or history
ID_CHARS: Final = 200
#: The key under which `submit` leaves its own id in extra_data. Servers before 0.3.45 choose the prompt_id
#: themselves, and this is how a prompt is found again when their answer was lost.
SUBMIT_ID: Final = "submit_id"


class ReplyError(ValueError):
    """The answer is not one that ComfyUI gives."""


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    type: str  # cuda, cpu, mps, ...
    index: int | None
    vram_total_bytes: int
    vram_free_bytes: int


@dataclass(frozen=True, slots=True)
class SystemStats:
    version: tuple[int, ...]  # (0, 3, 64); () when the server is too old to say
    version_text: str
    ram_total_bytes: int
    ram_free_bytes: int
    devices: tuple[Device, ...]  # the one in use first
    pytorch_version: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """What the server in front of us can do, where versions differ."""

    own_prompt_id: bool  # keeps the prompt_id it is given (0.3.45)
    targeted_interrupt: bool  # /interrupt obeys its prompt_id (0.3.57); before, it hits whatever runs
    atomic_cancel: bool  # has /api/jobs/{id}/cancel (late 2026)

    @classmethod
    def of(cls, version: tuple[int, ...], *, jobs_api: bool) -> "Features":
        return cls(version >= (0, 3, 45), version >= (0, 3, 57), jobs_api)


@dataclass(frozen=True, slots=True)
class Submitted:
    prompt_id: str  # the one ComfyUI uses, which is not always the one asked for
    number: float | None  # its place in line; a restarted server begins at 0 again. None: the answer was lost
    #: Outputs that were skipped although the prompt was taken: node id -> what is wrong with it
    node_errors: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class QueueItem:
    prompt_id: str
    number: float
    client_id: str | None
    submit_id: str | None


@dataclass(frozen=True, slots=True)
class Queue:
    running: tuple[QueueItem, ...]
    pending: tuple[QueueItem, ...]  # in the order they will run


class Outcome(enum.Enum):
    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    prompt_id: str
    outcome: Outcome
    files: tuple[OutputFile, ...]  # a failed prompt can have some
    failure: ExecutionError | None  # set when the outcome is ERROR and ComfyUI said which node
    run_ms: int | None  # from start to end by ComfyUI's clock
    submit_id: str | None


@dataclass(frozen=True, slots=True)
class Running:
    item: QueueItem


@dataclass(frozen=True, slots=True)
class Pending:
    item: QueueItem
    ahead: int  # prompts that run or wait before it


@dataclass(frozen=True, slots=True)
class Finished:
    entry: HistoryEntry


@dataclass(frozen=True, slots=True)
class Absent:
    """ComfyUI knows nothing of the prompt: it was never taken, was deleted, or the server has restarted."""


Found = Running | Pending | Finished | Absent


def load(body: bytes) -> object:
    """The JSON in an answer. NaN and infinities, which ComfyUI's encoder lets through, become None."""
    try:
        return json.loads(body, parse_float=_finite, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as e:
        raise ReplyError(f"not JSON ({plain(str(e), 100)})") from e


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def system_stats(body: bytes) -> SystemStats:
    reply = _map(load(body), "system_stats")
    system = _map(reply.get("system"), "system")
    devices = reply.get("devices")
    text = plain(system.get("comfyui_version"), 50)
    argv = system.get("argv")
    return SystemStats(
        version=version_of(text),
        version_text=text,
        ram_total_bytes=_count(system.get("ram_total")),
        ram_free_bytes=_count(system.get("ram_free")),
        devices=tuple(_device(_map(d, "device")) for d in devices[:64]) if isinstance(devices, list) else (),
        pytorch_version=plain(system.get("pytorch_version"), 50),
        argv=tuple(plain(word, 500) for word in argv[:100]) if isinstance(argv, list) else (),
    )


def version_of(text: str) -> tuple[int, ...]:
    """(0, 3, 64) for "0.3.64", "v0.3.64" and "0.3.64-dev"; () for no version. Never compare versions as text."""
    found = re.match(r"v?(\d{1,6}(?:\.\d{1,6}){0,5})", text, re.ASCII)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _device(fields: Mapping[str, object]) -> Device:
    index = fields.get("index")
    return Device(
        name=plain(fields.get("name"), 200),
        type=plain(fields.get("type"), 50),
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        vram_total_bytes=_count(fields.get("vram_total")),
        vram_free_bytes=_count(fields.get("vram_free")),
    )


def object_info(body: bytes) -> Mapping[str, object]:
    """Node classes by name. Each description is read, with equal distrust, by comfyui/catalogue.py."""
    return _map(load(body), "object_info")


def jobs_listing(body: bytes) -> bool:
    """Whether this is the answer of /api/jobs, rather than of some other page at that address."""
    reply = load(body)
    return isinstance(reply, dict) and isinstance(reply.get("jobs"), list)


def cancelled(body: bytes) -> bool:
    return _map(load(body), "cancel").get("cancelled") is True


def submitted(body: bytes) -> Submitted:
    reply = _map(load(body), "the answer to /prompt")
    number = reply.get("number")
    return Submitted(
        prompt_id=_id(reply.get("prompt_id"), "prompt_id"),
        number=float(_number(number)) if number is not None else None,
        node_errors=node_faults(reply.get("node_errors")),
    )


def uploaded(body: bytes) -> str:
    """The value that a LoadImage input takes: "name" or "subfolder/name"."""
    reply = _map(load(body), "the answer to /upload/image")
    name, subfolder = reply.get("name"), reply.get("subfolder", "")
    if not isinstance(name, str) or not isinstance(subfolder, str) or not name:
        raise ReplyError("the upload's name is missing")
    return f"{subfolder}/{name}" if subfolder else name


def queue(body: bytes) -> Queue:
    reply = _map(load(body), "queue")
    running, pending = _items(reply.get("queue_running")), _items(reply.get("queue_pending"))
    # Pending prompts are sent in the order of a heap, which is not the order in which they run.
    return Queue(running, tuple(sorted(pending, key=lambda item: (item.number, item.prompt_id))))


def _items(value: object) -> tuple[QueueItem, ...]:
    if not isinstance(value, list):
        raise ReplyError("the queue has no list of prompts")
    return tuple(_item(entry) for entry in value[:ITEMS])


def _item(entry: object) -> QueueItem:
    # [number, prompt_id, prompt, extra_data, outputs to execute]. Other clients' prompts are here too, with any id
    # and number that ComfyUI takes: they must not hide ours.
    if not isinstance(entry, list) or len(entry) < 2:
        raise ReplyError("a prompt in the queue is not a list")
    extra = _extra_data(entry)
    client_id = extra.get("client_id")
    return QueueItem(
        prompt_id=plain(entry[1], ID_CHARS),
        number=_place(entry[0]),
        # One of ours goes into the address of a socket.
        client_id=client_id if isinstance(client_id, str) and plain(client_id, ID_CHARS) == client_id else None,
        submit_id=_submit_id(extra),
    )


def _extra_data(entry: object) -> Mapping[str, object]:
    return entry[3] if isinstance(entry, list) and len(entry) > 3 and isinstance(entry[3], dict) else {}


def _submit_id(extra: Mapping[str, object]) -> str | None:
    submit_id = extra.get(SUBMIT_ID)
    return submit_id if isinstance(submit_id, str) else None


def history(body: bytes) -> tuple[HistoryEntry, ...]:
    """Ended prompts, oldest first. Empty when the one asked for is unknown, waiting or running."""
    reply = _map(load(body), "history")
    return tuple(_entry(plain(key, ID_CHARS), _map(value, "entry")) for key, value in reply.items())


def _entry(prompt_id: str, fields: Mapping[str, object]) -> HistoryEntry:
    status = fields.get("status")
    events = _events(status.get("messages") if isinstance(status, dict) else None)
    outcome = _outcome(status, events)
    failure = _failure(events) if outcome is Outcome.ERROR else None
    try:
        files = output_files(fields.get("outputs"))
    except OutputsError as e:
        # It has ended, and asking again gives the same answer: that is a failure of the prompt.
        outcome, files = Outcome.ERROR, ()
        failure = ExecutionError(prompt_id, "", "", "", f"ComfyUI lists its output files senselessly: {e}", ())
    submit_id = _submit_id(_extra_data(fields.get("prompt")))
    return HistoryEntry(prompt_id, outcome, files, failure, _run_ms(events), submit_id)


def _events(messages: object) -> list[tuple[str, Mapping[str, object]]]:
    if not isinstance(messages, list):
        return []
    return [
        (message[0], message[1])
        for message in messages[:ITEMS]
        if isinstance(message, list)
        and len(message) == 2
        and isinstance(message[0], str)
        and isinstance(message[1], dict)
    ]


def _outcome(status: object, events: list[tuple[str, Mapping[str, object]]]) -> Outcome:
    """An interrupted prompt has the status "error" too: only its last message tells them apart."""
    last = events[-1][0] if events else ""
    if last == "execution_interrupted":
        return Outcome.INTERRUPTED
    # Where nodes that others made turn in circles, none of them runs, and the status is that of the node before.
    failed = last == "execution_error"
    succeeded = not failed and isinstance(status, dict) and status.get("status_str") == "success"
    return Outcome.SUCCESS if succeeded or last == "execution_success" else Outcome.ERROR


def _failure(events: list[tuple[str, Mapping[str, object]]]) -> ExecutionError | None:
    error = next((data for kind, data in reversed(events) if kind == "execution_error"), None)
    try:
        return execution_error(error) if error is not None else None
    except MessageError:
        return None


def _run_ms(events: list[tuple[str, Mapping[str, object]]]) -> int | None:
    stamps = [_count(data.get("timestamp")) for _, data in events]
    return stamps[-1] - stamps[0] if stamps and 0 < stamps[0] <= stamps[-1] else None


def _map(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ReplyError(f"{what} is not an object")
    return value


def _id(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or plain(value, ID_CHARS) != value:
        raise ReplyError(f"{what} is not an id")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -(2**53) < value < 2**53:
        raise ReplyError("a prompt's number is none")
    return value


def _place(value: object) -> float:
    """As a client chose it, so of any size."""
    if value is None:
        return math.inf
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ReplyError("a place in the queue is not a number")
    return value


def _count(value: object) -> int:
    """A size or time; 0 when the server does not say."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63:
        return int(value)
    return 0
