"""Every message ComfyUI sends over its WebSocket, as one frozen dataclass each.

`parse` is total: any frame gives a message, `Unknown` for a type we have no use for, or one MessageError. It never
trusts a size, a type or a number it is given, and never opens an image. Pure; comfyui/ws.py owns the socket.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from comfyui.outputs import OutputFile, OutputsError, output_files
from comfyui.words import plain

TEXT_BYTES: Final = 8 << 20  # a longer JSON message is refused before it is parsed; /history has the truth
METADATA_BYTES: Final = 64 << 10
ID_CHARS: Final = 200
NODES: Final = 20_000  # entries read from one list or map in a message
TRACEBACK_LINES: Final = 60

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class MessageError(ValueError):
    """The frame is not a message ComfyUI would send. Count it and go on: the socket is only a hint."""


@dataclass(frozen=True, slots=True)
class Status:
    """The queue changed, or the socket was just opened (only then `sid` is set)."""

    queue_remaining: int  # pending and running prompts of everybody
    sid: str | None


@dataclass(frozen=True, slots=True)
class FeatureFlags:
    """The server's answer to our own flags, since 0.3.45."""

    preview_metadata: bool
    max_upload_bytes: int | None


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionCached:
    """Nodes that need not run. Sent for each prompt, also when there are none."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """A node begins. `node` None: the prompt has ended and its history is written, however it ended.

    `prompt_id` is None in the one message that is replayed to a socket opened in mid-run.
    """

    prompt_id: str | None
    node: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps of the node at work. `0 <= value <= max`; a value may repeat, and each node starts anew."""

    prompt_id: str | None
    node: str | None
    value: float
    max: float


@dataclass(frozen=True, slots=True)
class NodeProgress:
    node: str
    state: str  # running, finished, error; later versions may say more
    value: float
    max: float


@dataclass(frozen=True, slots=True)
class ProgressState:
    """All nodes begun so far, since 0.3.45. It may be missing; what it says may be relied on."""

    prompt_id: str
    nodes: tuple[NodeProgress, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """A node with output for people has ended. What it made is a hint, to be confirmed by /history."""

    prompt_id: str
    node: str
    files: tuple[OutputFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionSuccess:
    """All nodes ran. /history may follow some milliseconds later: wait for Executing(node=None)."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """A node raised. One variant comes in mid-run of a prompt that then succeeds: only /history is final."""

    prompt_id: str
    node_id: str
    node_type: str
    exception_type: str
    exception_message: str
    traceback: tuple[str, ...]

    @property
    def out_of_memory(self) -> bool:
        """The card (or the host) had no memory left: another card may do it."""
        return self.exception_type.endswith("OutOfMemoryError") or any(
            tip in self.exception_message
            for tip in ("ran out of memory on your GPU", "DefaultCPUAllocator: can't allocate memory")
        )

    @property
    def cuda_broken(self) -> bool:
        """The process can no longer use its card: every later prompt fails until ComfyUI is restarted."""
        text = self.exception_message.lower()
        signs = ("device-side assert", "illegal memory access", "cuda error: unspecified launch failure")
        return any(sign in text for sign in signs)


@dataclass(frozen=True, slots=True)
class ExecutionInterrupted:
    prompt_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of the step at work, or a result of SaveImageWebsocket (then a PNG at full size).

    Servers before 0.3.45 name neither prompt nor node: it belongs to the running prompt of this client.
    """

    prompt_id: str | None
    node: str | None
    mime: str  # image/jpeg or image/png, as its first bytes say
    image: bytes


@dataclass(frozen=True, slots=True)
class ProgressText:
    """Words about a node at work (binary type 3)."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A type that a custom node, a log subscriber or a later version uses."""

    type: str


Message = (
    Status
    | FeatureFlags
    | ExecutionStart
    | ExecutionCached
    | Executing
    | Progress
    | ProgressState
    | Executed
    | ExecutionSuccess
    | ExecutionError
    | ExecutionInterrupted
    | Preview
    | ProgressText
    | Unknown
)


def parse(frame: str | bytes) -> Message:
    """The message in one frame: text frames are JSON, binary frames are previews and progress text.

    Raises: MessageError, and nothing else.
    """
    return _parse_json(frame) if isinstance(frame, str) else _parse_binary(frame)


def _parse_json(frame: str) -> Message:
    if len(frame) > TEXT_BYTES:
        raise MessageError(f"message of {len(frame)} characters; the limit is {TEXT_BYTES}")
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as e:
        raise MessageError(f"not JSON: {plain(str(e), 200)}") from e
    fields = _map(message, "message")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise MessageError("message without a type")
    read = _JSON_TYPES.get(kind)
    return read(_map(fields.get("data"), kind)) if read is not None else Unknown(plain(kind, ID_CHARS))


def _status(data: Mapping[str, object]) -> Status:
    info = _map(_map(data.get("status"), "status").get("exec_info"), "exec_info")
    return Status(int(_number(info.get("queue_remaining"), "queue_remaining")), _optional_id(data, "sid"))


def _feature_flags(data: Mapping[str, object]) -> FeatureFlags:
    limit = data.get("max_upload_size")
    max_upload_bytes = int(_number(limit, "max_upload_size")) if limit is not None else None
    return FeatureFlags(data.get("supports_preview_metadata") is True, max_upload_bytes)


def _execution_cached(data: Mapping[str, object]) -> ExecutionCached:
    nodes = data.get("nodes")
    if not isinstance(nodes, list):
        raise MessageError("execution_cached without its list of nodes")
    return ExecutionCached(_id(data, "prompt_id"), tuple(_as_id(node, "nodes") for node in nodes[:NODES]))


def _progress(data: Mapping[str, object]) -> Progress:
    value, top = _steps(data)
    return Progress(_optional_id(data, "prompt_id"), _optional_id(data, "node"), value, top)


def _progress_state(data: Mapping[str, object]) -> ProgressState:
    nodes = []
    for node_id, entry in list(_map(data.get("nodes"), "nodes").items())[:NODES]:
        fields = _map(entry, "node")
        nodes.append(NodeProgress(_as_id(node_id, "node"), plain(fields.get("state"), 50), *_steps(fields)))
    return ProgressState(_id(data, "prompt_id"), tuple(nodes))


def _executed(data: Mapping[str, object]) -> Executed:
    node = _id(data, "node")
    try:
        files = output_files({node: data.get("output")})
    except OutputsError as e:
        raise MessageError(str(e)) from e
    return Executed(_id(data, "prompt_id"), node, files)


def execution_error(data: Mapping[str, object]) -> ExecutionError:
    """The same map stands in the socket's message and in the history entry. Raises: MessageError."""
    lines = data.get("traceback")
    return ExecutionError(
        prompt_id=_id(data, "prompt_id"),
        node_id=plain(data.get("node_id"), ID_CHARS),
        node_type=plain(data.get("node_type"), ID_CHARS),
        exception_type=plain(data.get("exception_type"), ID_CHARS),
        exception_message=plain(data.get("exception_message")),
        traceback=tuple(plain(line) for line in lines[:TRACEBACK_LINES]) if isinstance(lines, list) else (),
    )


_JSON_TYPES: Final[Mapping[str, Callable[[Mapping[str, object]], Message]]] = {
    "status": _status,
    "feature_flags": _feature_flags,
    "execution_start": lambda data: ExecutionStart(_id(data, "prompt_id")),
    "execution_cached": _execution_cached,
    "executing": lambda data: Executing(_optional_id(data, "prompt_id"), _optional_id(data, "node")),
    "progress": _progress,
    "progress_state": _progress_state,
    "executed": _executed,
    "execution_success": lambda data: ExecutionSuccess(_id(data, "prompt_id")),
    "execution_error": execution_error,
    "execution_interrupted": lambda data: ExecutionInterrupted(
        _id(data, "prompt_id"), plain(data.get("node_id"), ID_CHARS)
    ),
}


def _parse_binary(frame: bytes) -> Message:
    # [u32 event type, ...] big-endian: 1 [u32 format, image], 3 [u32 length, node id, text],
    # 4 [u32 length, JSON, image]
    kind = _u32(frame, 0)
    if kind == 1:
        _u32(frame, 4)  # 1 JPEG, 2 PNG: the image's own first bytes are the better witness
        return _preview(None, None, frame[8:])
    if kind == 3:
        node, text = _sized(frame)
        return ProgressText(plain(node.decode(errors="replace"), ID_CHARS), plain(text.decode(errors="replace")))
    if kind == 4:
        metadata, image = _sized(frame)
        try:
            fields = _map(json.loads(metadata), "preview metadata")
        except (ValueError, RecursionError) as e:
            raise MessageError("preview metadata is not JSON") from e
        return _preview(_optional_id(fields, "prompt_id"), _optional_id(fields, "node_id"), image)
    return Unknown(f"binary {kind}")


def _preview(prompt_id: str | None, node: str | None, image: bytes) -> Preview:
    if image.startswith(_JPEG):
        return Preview(prompt_id, node, "image/jpeg", image)
    if image.startswith(_PNG):
        return Preview(prompt_id, node, "image/png", image)
    raise MessageError("a preview that is neither JPEG nor PNG")


def _u32(frame: bytes, at: int) -> int:
    if len(frame) < at + 4:
        raise MessageError(f"binary frame of {len(frame)} bytes ends in its header")
    return int.from_bytes(frame[at : at + 4], "big")


def _sized(frame: bytes) -> tuple[bytes, bytes]:
    """The sized part after the type, and what follows it."""
    end = 8 + _u32(frame, 4)
    if end > min(len(frame), 8 + METADATA_BYTES):
        raise MessageError(f"binary frame of {len(frame)} bytes claims a part that ends at {end}")
    return frame[8:end], frame[end:]


def _map(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise MessageError(f"{plain(what, ID_CHARS)} is not an object")
    return value


def _as_id(value: object, what: str) -> str:
    if isinstance(value, str) and 0 < len(value) <= ID_CHARS and plain(value, ID_CHARS) == value:
        return value
    raise MessageError(f"{what} is not an id")


def _id(data: Mapping[str, object], key: str) -> str:
    return _as_id(data.get(key), key)


def _optional_id(data: Mapping[str, object], key: str) -> str | None:
    value = data.get(key)
    return _as_id(value, key) if value is not None else None


def _number(value: object, what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    raise MessageError(f"{what} is not a count")


def _steps(data: Mapping[str, object]) -> tuple[float, float]:
    top = _number(data.get("max"), "max")
    return min(_number(data.get("value"), "value"), top), top
