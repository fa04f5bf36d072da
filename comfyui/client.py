"""One worker's hold on one ComfyUI: submit, watch, find, cancel, and carry files in and out.

Synchronous, for a loop that polls `fileno()`. No method takes longer than `limit_s` (the exceptions say so), and none
raises anything but ComfyError for what ComfyUI does. The event socket is a hint; `find` is the truth: a socket can stay
open and deaf, so a caller that hears nothing while it expects a prompt's events asks `find`, and reconnects.
It keeps no state of prompts. Owns one event socket and up to two HTTP connections; not for use by several threads.
"""

import json
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote

from comfyui import replies
from comfyui.errors import ComfyFailed, ComfyLost, ComfyRejected, ComfyUnreachable
from comfyui.http import Http, Reply
from comfyui.messages import Message, MessageError, parse
from comfyui.names import FOLDERS, name_fault, path_fault
from comfyui.outputs import OutputFile
from comfyui.replies import (
    Absent,
    Features,
    Finished,
    Found,
    HistoryEntry,
    Pending,
    Queue,
    ReplyError,
    Running,
    Submitted,
    SystemStats,
)
from comfyui.words import node_faults, plain, refusal
from comfyui.workflow import Workflow
from comfyui.ws import EventSocket

T = TypeVar("T")

LIMIT_S: Final = 4.0
OUTPUT_NAME_BYTES: Final = 255  # a prefix of ours, and the counter ComfyUI adds
RECENT: Final = 100  # history entries searched on servers that choose the prompt_id themselves
_JSON: Final = {"Content-Type": "application/json"}
_NOT_HERE: Final = frozenset({400, 403, 404, 405})


class ComfyClient:
    """`url` is http://host:port. `client_id` ties events to prompts: long, random, one per worker, kept while a
    prompt of its runs. `limit_s` bounds each call. Raises: ValueError for another kind of URL."""

    def __init__(self, url: str, *, client_id: str, limit_s: float = LIMIT_S) -> None:
        self._http = Http(url, limit_s=limit_s)
        self.url = self._http.url
        self.client_id = client_id
        #: Frames that were no message of ComfyUI's, since the start.
        self.garbled = 0
        self._socket: EventSocket | None = None
        self._features: Features | None = None

    def close(self) -> None:
        """Closes all connections. The client can be used again."""
        self.disconnect()
        self._http.close()

    # ---- events

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def connect(self) -> SystemStats:
        """Opens the event socket, after closing the one before; learns the server's version anew.

        Raises: ComfyUnreachable; then no socket is open.
        """
        self.disconnect()
        self._features = None
        by = self._http.by(0.75)  # the rest is for a goodbye to the socket before
        stats = self._system_stats(by)
        self._features = self._probe(stats, by)
        self._http.timer.by = by
        self._socket = EventSocket(self._http.host, self._http.port, self.client_id, self._http.timer)
        return stats

    def disconnect(self) -> None:
        """Closes the event socket and waits, up to a quarter of the limit, until the server has let go of it."""
        if self._socket is not None:
            self._http.timer.by = self._http.by(0.25)
            self._socket.close(self._http.timer)
            self._socket = None

    def fileno(self) -> int:
        """The event socket's descriptor. Raises: ComfyUnreachable when there is none."""
        return self._events().fileno()

    @property
    def waiting(self) -> bool:
        """Messages have been taken off the socket that `receive` has not given yet: the descriptor does not tell."""
        return self._socket is not None and self._socket.waiting

    def receive(self) -> list[Message]:
        """The messages that have arrived, and never a wait. Call again while `waiting` or the descriptor is readable.

        Messages of other clients' prompts come too: look at prompt_id.
        Raises: ComfyUnreachable when the socket has ended; call `connect`, then `find` what is under way.
        """
        try:
            frames = self._events().receive()
        except ComfyUnreachable:
            self.disconnect()
            raise
        messages = []
        for frame in frames:
            try:
                messages.append(parse(frame))
            except MessageError:
                self.garbled += 1
        return messages

    def _events(self) -> EventSocket:
        if self._socket is None:
            raise ComfyUnreachable(f"the event socket of ComfyUI at {self.url} is not open; connect first")
        return self._socket

    # ---- facts

    def system_stats(self) -> SystemStats:
        return self._system_stats(self._http.by())

    def features(self) -> Features:
        """What this version can do, learnt at `connect` or now."""
        return self._known_features(self._http.by())

    def object_info(self) -> Mapping[str, object]:
        """All node classes with their inputs and choices, as they are: for comfyui/catalogue.py."""
        return self._get("/object_info", replies.object_info, self._http.by())

    def _system_stats(self, by: float) -> SystemStats:
        return self._get("/system_stats", replies.system_stats, by)

    def _known_features(self, by: float) -> Features:
        if self._features is None:
            self._features = self._probe(self._system_stats(by), by)
        return self._features

    def _probe(self, stats: SystemStats, by: float) -> Features:
        reply = self._http.call("GET", "/api/jobs", by=by, query={"limit": "1"}, also=_NOT_HERE)
        try:
            jobs_api = reply.status == 200 and replies.jobs_listing(reply.body)
        except ReplyError:
            jobs_api = False
        return Features.of(stats.version, jobs_api=jobs_api)

    # ---- prompts

    def submit(self, workflow: Workflow, prompt_id: str, extra_data: Mapping[str, object] | None = None) -> Submitted:
        """Queues a workflow under `prompt_id`, a UUID in its usual form. Trust the id that is returned.

        ComfyUI takes the same prompt_id twice and runs it twice: after ComfyLost ask `find` first, and more than once
        if the server hung, for it takes what it was sent when it wakes.
        Raises: ComfyRejected, the graph is refused. ComfyUnreachable, it was not taken. ComfyLost, nobody knows.
        """
        if str(uuid.UUID(prompt_id)) != prompt_id:
            raise ValueError(f"{prompt_id!r} is not a UUID in lower case with hyphens")
        extra = {**(extra_data if extra_data is not None else {}), replies.SUBMIT_ID: prompt_id}
        body = {"prompt": workflow.graph(), "prompt_id": prompt_id, "client_id": self.client_id, "extra_data": extra}
        try:
            reply = self._post("/prompt", body, self._http.by(0.6), also=frozenset({400, 413}))
            if reply.status == 200:
                return self._read("/prompt", replies.submitted, reply.body)
        except ComfyUnreachable as e:
            return self._submitted_after_all(prompt_id, e)
        raise self._rejection(reply)

    def find(self, prompt_id: str) -> Found:
        """Where a prompt is, by ComfyUI's id or by the one it was submitted under. Raises: ComfyUnreachable."""
        return self._find(prompt_id, self._http.by())

    def queue(self) -> Queue:
        return self._queue(self._http.by())

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """How a prompt ended; None while it waits or runs, or when it is unknown. Raises: ComfyUnreachable."""
        return self._history(prompt_id, self._http.by())

    def dequeue(self, prompt_id: str) -> None:
        """Deletes a waiting prompt. One that runs or has ended is left alone, and nobody is told which it was."""
        self._post("/queue", {"delete": [prompt_id]}, self._http.by())

    def interrupt(self, prompt_id: str) -> bool:
        """Stops a running prompt at its next step or node, and no other one. False: it is not running.

        True is no promise: the prompt may end by itself first. Only `find` tells.
        Raises: ComfyUnreachable.
        """
        by = self._http.by()
        features = self._known_features(by)
        if features.atomic_cancel:
            path = f"/api/jobs/{quote(prompt_id, safe='')}/cancel"
            reply = self._post(path, {}, by, also=_NOT_HERE)
            return reply.status == 200 and self._read(path, replies.cancelled, reply.body)
        # An old server stops whatever runs. If ours ends between these two calls the next prompt is hit: in front of
        # such a server a worker keeps one prompt at a time.
        if not features.targeted_interrupt and all(prompt_id != item.prompt_id for item in self._queue(by).running):
            return False
        self._post("/interrupt", {"prompt_id": prompt_id}, by)
        return True

    def free(self) -> None:
        """Unloads all models and forgets all cached results: now if idle, else after the running prompt."""
        self._post("/free", {"unload_models": True, "free_memory": True}, self._http.by())

    def _submitted_after_all(self, prompt_id: str, doubt: ComfyUnreachable) -> Submitted:
        """ComfyUI can answer 500, or nothing at all, to a prompt that it has queued."""
        try:
            found = self._find(prompt_id, self._http.by(0.4))
        except ComfyUnreachable:
            message = f"ComfyUI at {self.url} may or may not have prompt {prompt_id}; find it before sending it again"
            raise ComfyLost(message) from doubt
        match found:
            case Running(item) | Pending(item, _):
                return Submitted(item.prompt_id, item.number, {})
            case Finished(entry):
                return Submitted(entry.prompt_id, None, {})
            case Absent():
                raise doubt

    def _find(self, prompt_id: str, by: float) -> Found:
        # A prompt leaves the queue and enters the history in one step, between two of these calls perhaps:
        # only a second look at the history makes "neither" certain.
        entry = self._history(prompt_id, by)
        if entry is None:
            queue = self._queue(by)
            for item in queue.running:
                if prompt_id in (item.prompt_id, item.submit_id):
                    return Running(item)
            for place, item in enumerate(queue.pending):
                if prompt_id in (item.prompt_id, item.submit_id):
                    return Pending(item, place + len(queue.running))
            entry = self._history(prompt_id, by)
        return Finished(entry) if entry is not None else Absent()

    def _queue(self, by: float) -> Queue:
        return self._get("/queue", replies.queue, by)

    def _history(self, prompt_id: str, by: float) -> HistoryEntry | None:
        entries = self._get(f"/history/{quote(prompt_id, safe='')}", replies.history, by)
        if not entries and not self._known_features(by).own_prompt_id:
            entries = self._get("/history", replies.history, by, {"max_items": str(RECENT)})
        return next((entry for entry in entries if prompt_id in (entry.prompt_id, entry.submit_id)), None)

    def _rejection(self, reply: Reply) -> ComfyRejected:
        if reply.status == 413:
            return ComfyRejected(f"the workflow is larger than ComfyUI at {self.url} accepts (--max-upload-size)")
        try:
            answer = replies.load(reply.body)
        except ReplyError:
            answer = None
        fields = answer if isinstance(answer, dict) else {}
        error, faults = fields.get("error"), node_faults(fields.get("node_errors"))
        code = plain(error.get("type"), 100) if isinstance(error, dict) else ""
        return ComfyRejected(refusal(error, faults), error=code, node_errors=faults)

    # ---- files

    def upload(
        self, name: str, data: bytes | Iterable[bytes], *, size_bytes: int | None = None, subfolder: str = ""
    ) -> str:
        """Puts a file into ComfyUI's input folder; returns the value that names it in a LoadImage input.

        The same name and bytes give the same value; the same name with other bytes gives another one. An iterable needs
        its `size_bytes`; it is drawn part by part, and each part may take the whole limit: a caller beats in between.
        Raises: ComfyRejected, ComfyUnreachable.
        """
        if isinstance(data, bytes):
            data, size_bytes = [data], len(data)
        if size_bytes is None:
            raise ValueError("an iterable upload needs its size_bytes")
        fault = name_fault(name) if '"' not in name else "holds a quotation mark"  # the form puts it in some
        if fault is None and subfolder:
            fault = path_fault(subfolder)
        if fault is not None:
            raise ValueError(f"cannot upload as {name!r} to {subfolder!r}: it {fault}")
        body, headers = _multipart(name, {"type": "input", "subfolder": subfolder}, data, size_bytes)
        path, refused = "/upload/image", frozenset({400, 413})
        reply = self._http.call("POST", path, by=self._http.by(), body=body, headers=headers, also=refused)
        if reply.status != 200:
            reason = "larger than it accepts" if reply.status == 413 else "refused"
            raise ComfyRejected(f"the file {name} for ComfyUI at {self.url} is {reason}")
        return self._read(path, replies.uploaded, reply.body)

    def has_input(self, value: str, size_bytes: int | None = None) -> bool:
        """Whether the input folder has the file that `upload` called `value`, of that size if it is told.

        A server whose disk was full, or that was killed in the middle of an upload, has kept it cut.
        Raises: ComfyUnreachable.
        """
        subfolder, _, name = value.rpartition("/")
        query = {"filename": name, "subfolder": subfolder, "type": "input"}
        reply = self._http.call("HEAD", "/view", by=self._http.by(), query=query, also=_NOT_HERE)
        return reply.status == 200 and (None in (size_bytes, reply.size_bytes) or size_bytes == reply.size_bytes)

    def view(self, file: OutputFile, *, limit_bytes: int) -> Iterator[bytes]:
        """A file that a prompt made, in pieces; each may take the whole limit, so beat between them.

        Its names are checked before a URL is made of them; its content is not looked at.
        Raises: ComfyFailed, now or at a chunk: unsafe name, gone, or over `limit_bytes`. ComfyUnreachable: cut short.
        """
        fault = name_fault(file.filename, limit_bytes=OUTPUT_NAME_BYTES)
        if fault is None and file.subfolder:
            fault = path_fault(file.subfolder)
        if fault is None and file.folder not in FOLDERS:
            fault = f"lies in a folder {plain(file.folder, 50)!r} that ComfyUI does not have"
        if fault is not None:
            raise ComfyFailed(f"the output {plain(file.filename, 100)!r} of node {plain(file.node_id, 50)} {fault}")
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder}
        return self._http.stream("/view", query, limit_bytes=limit_bytes)

    # ---- one exchange

    def _get(self, path: str, meaning: Callable[[bytes], T], by: float, query: Mapping[str, str] | None = None) -> T:
        return self._read(path, meaning, self._http.call("GET", path, by=by, query=query).body)

    def _post(self, path: str, value: Mapping[str, object], by: float, also: frozenset[int] = frozenset()) -> Reply:
        body = json.dumps(value, allow_nan=False).encode()
        return self._http.call("POST", path, by=by, body=body, headers=_JSON, also=also)

    def _read(self, path: str, meaning: Callable[[bytes], T], body: bytes) -> T:
        try:
            return meaning(body)
        except ReplyError as e:
            raise ComfyUnreachable(f"ComfyUI at {self.url} answered {path} with something else: {e}") from e


def _multipart(
    name: str, fields: Mapping[str, str], parts: Iterable[bytes], size_bytes: int
) -> tuple[Iterator[bytes], dict[str, str]]:
    """A form with one file, part by part, and its headers."""
    edge = secrets.token_hex(16)
    form = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
    )
    head = (
        f'{form}--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{edge}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        left_bytes = size_bytes
        for part in parts:
            left_bytes -= len(part)
            if left_bytes < 0:
                break
            yield part
        if left_bytes != 0:  # the server would take what follows for its next request, or wait for ever
            raise ValueError(f"the file {name} has not the {size_bytes} bytes it was announced with")
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={edge}",
        "Content-Length": str(len(head) + size_bytes + len(tail)),
    }
    return body(), headers
