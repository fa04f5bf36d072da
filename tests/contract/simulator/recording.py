"""Recordings of real ComfyUI servers: read, and made comparable with what a replay heard.

A recording is JSON lines {t, dir, conn, kind, payload}: what one script sent to a server, and what it got. Only what
belongs to the machine, the moment or the draw of an id is made equal here, each with its reason; all else is compared
to the letter, the order of keys included.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"
#: Headers a recording keeps.
HEADERS = ("Content-Disposition", "Content-Type", "Etag", "Allow", "Content-Length")


@dataclass(frozen=True)
class Line:
    """One line of a recording, or of a replay."""

    t: float
    dir: str
    conn: str
    kind: str
    payload: Any


def load(version: str, scenario: str) -> list[Line]:
    (file,) = (RECORDINGS / version).glob(f"{scenario}-*.jsonl")
    return [Line(**json.loads(line)) for line in file.read_text().splitlines()]


def _step_of(line: Line) -> dict[str, Any] | None:
    """The data of a progress message; None for any other line."""
    if line.kind == "text" and isinstance(line.payload, dict) and line.payload.get("type") == "progress":
        return dict(line.payload["data"])
    return None


def unfinished(lines: list[Line]) -> set[tuple[str, str]]:
    """(prompt_id, node) of every sampler that is not seen to reach its last step."""
    steps = [step for line in lines if (step := _step_of(line)) is not None]
    done = {(step["prompt_id"], step["node"]) for step in steps if step["value"] == step["max"] or step["max"] == 1}
    return {(step["prompt_id"], step["node"]) for step in steps} - done


def _interrupted(lines: list[Line]) -> list[str]:
    texts = [line.payload for line in lines if line.kind == "text" and line.dir == "recv"]
    return [text["data"]["prompt_id"] for text in texts if text["type"] == "execution_interrupted"]


def _is_negotiated(line: Line) -> bool:
    """Whether this is the server's answer to a client's feature flags."""
    return line.kind == "text" and line.dir == "recv" and line.payload["type"] == "feature_flags"


def _prompt_of_progress(line: Line, last: dict[str, Any] | None) -> Any:
    """Which prompt's progress, progress_state or preview this is; None if it is none."""
    if line.kind == "binary":
        return line.payload.get("metadata", last if last is not None else {}).get("prompt_id")
    if line.kind == "text" and line.payload["type"].startswith("progress"):
        return line.payload["data"]["prompt_id"]
    return None


class Comparable:
    """Turns the messages of one side into texts that are equal when the servers behave the same."""

    def __init__(self, recorded: list[Line]) -> None:
        self._cut_short = unfinished(recorded)
        # A recording that begins just before an earlier prompt ends may have heard none of its last steps.
        steps = [step["prompt_id"] for line in recorded if (step := _step_of(line)) is not None]
        self._unheard = {prompt_id for prompt_id in _interrupted(recorded) if prompt_id not in steps}
        self._letters: dict[str, str] = {}

    def socket(self, lines: list[Line], conn: str) -> list[str]:
        """All that one socket heard, in order.

        How many steps a sampler comes to that is cut short, and at which of them a client joins, leaves or does
        something else, is a matter of milliseconds: all messages of its steps are compared as a set of shapes, in the
        place of the first, and their numbers must rise. That place is after the answer to a negotiation, which a step
        can overtake while the client's part of it is still on its way.
        """
        mine = [line for line in lines if line.conn == conn and line.dir in ("recv", "ws")]
        mine = [line for line in mine if line.kind not in ("http_response", "client_close")]
        heard: list[str] = []
        shapes: dict[str, tuple[int, set[str]]] = {}
        values: dict[str, list[int]] = {}
        last = next((step for step in map(_step_of, mine) if step is not None), None)
        for line in mine:
            step = _step_of(line)
            last = step or last
            prompt_id = _prompt_of_progress(line, last)
            if prompt_id in self._unheard:
                continue
            shape = self._shape(line, last)
            if shape is None:
                place = len(heard)
                if _is_negotiated(line) and shapes and heard[-1] == "":
                    place -= 1
                    shapes = {owner: (at + (at == place), found) for owner, (at, found) in shapes.items()}
                heard.insert(place, self._text(line.kind, line.payload))
                continue
            if prompt_id not in shapes:
                heard.append("")
                shapes[prompt_id] = (len(heard) - 1, set())
            shapes[prompt_id][1].add(shape)
            if step is not None:
                values.setdefault(prompt_id, []).append(step["value"])
        for place, found in shapes.values():
            # A step between a socket's opening and its negotiation is shown in the old form, if there is one.
            negotiated = any(shape.startswith('binary {"type": 4') for shape in found)
            kept = [shape for shape in found if not (negotiated and shape.startswith('binary {"type": 1'))]
            heard[place] = "steps " + " | ".join(sorted(kept))
        for rising in values.values():
            assert rising == sorted(set(rising)), f"steps do not rise: {rising}"
        return heard

    def _shape(self, line: Line, last: dict[str, Any] | None) -> str | None:
        """A message about a step of a sampler that is cut short, without its number; None for any other.

        A preview without metadata belongs to the last step heard, or to the first if none was.
        """
        payload = line.payload
        if line.kind == "binary":
            known = {"node": payload["metadata"]["node_id"], **payload["metadata"]} if "metadata" in payload else last
            owned = known is not None and (known["prompt_id"], known["node"]) in self._cut_short
            return self._text(line.kind, payload) if owned else None
        if line.kind != "text" or payload.get("type") not in ("progress", "progress_state"):
            return None
        data = payload["data"]
        if payload["type"] == "progress":
            owned = (data["prompt_id"], data["node"]) in self._cut_short
            return self._text("text", {**payload, "data": {**data, "value": "step"}}) if owned else None
        nodes = data["nodes"]
        running = [node for node, state in nodes.items() if state["state"] == "running" and state["value"] >= 1]
        if not any((data["prompt_id"], node) in self._cut_short for node in running):
            return None
        shown = {node: {**state, "value": "step"} if node in running else state for node, state in nodes.items()}
        return self._text("text", {**payload, "data": {**data, "nodes": shown}})

    def response(self, line: Line, recorded: Line) -> str:
        """One HTTP answer, as far as the recording has it: long bodies were recorded by their length only."""
        answer = dict(line.payload)
        if "json" not in recorded.payload and "text" not in recorded.payload:
            answer.pop("json", None)
            answer.pop("text", None)
        return self._text("http", answer)

    def _text(self, kind: str, payload: Any) -> str:
        text = f"{kind} {json.dumps(_normal(payload), ensure_ascii=False)}"
        # Five random letters name a server's temp files; which ones stay the same is compared, not the letters.
        for letters in re.findall(r"ComfyUI_temp_([a-z]{5})_", text):
            self._letters.setdefault(letters, f"letters{len(self._letters)}")
        for letters, stand_in in self._letters.items():
            text = text.replace(f"ComfyUI_temp_{letters}_", f"ComfyUI_temp_{stand_in}_")
        return text


#: Figures of the machine or the moment, by the key they stand under.
FIGURES = (
    "timestamp", "modified", "created", "ram_total", "ram_free", "vram_total", "vram_free", "torch_vram_total",
    "torch_vram_free", "python_version", "pytorch_version", "argv",
)  # fmt: skip
#: Texts of our own in place of the real server's, cut out of the recordings.
WORDS = ("tooltip", "description", "output_tooltips")
#: Lists that the real server makes from a set of strings, in an order that changes from process to process.
SETS = ("executed", "current_outputs")


def _normal(value: Any, key: str = "") -> Any:
    if key in FIGURES:
        return type(value).__name__
    if key in WORDS and value:
        return "words"
    if key == "traceback":  # whose frames they are and how many is the real server's own business
        assert value and all(frame.startswith('  File "') for frame in value), value
        return "traceback"
    if key == "exception_message":  # names a file by its full path, which is another machine's
        return re.sub(r"'/.*/(input/)", r"'…/\1", value)
    if key in SETS:
        return sorted(value)
    if key == "close_code" and value == 1009:  # a frame too big: whether the client reads the server's close frame or
        return 1006  # first sees that the connection was reset is chance
    if isinstance(value, dict):
        if "first_bytes_hex" in value or "image_len" in value:
            return _picture(value)
        if "headers" in value:
            return _answer(value)
        return {name: _normal(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return _queue_item(value) if _is_queue_item(value) else [_normal(part) for part in value]
    return value


def _is_queue_item(value: list[Any]) -> bool:
    return len(value) == 5 and isinstance(value[1], str) and isinstance(value[2], dict) and isinstance(value[4], list)


def _queue_item(value: list[Any]) -> list[Any]:
    """[number, prompt_id, prompt, extra_data, outputs]: the outputs come from a set, too."""
    return [_normal(part) for part in value[:4]] + [sorted(value[4])]


def _picture(value: dict[str, Any]) -> Any:
    """Bytes of a picture: kind, format and metadata count, not how well the pixels pack."""
    kept = {k: v for k, v in value.items() if k not in ("len", "image_len", "first_bytes_hex", "image_first_bytes_hex")}
    for name in ("first_bytes_hex", "image_first_bytes_hex"):
        if name in value:
            kept[name] = re.sub(r"^(52494646).{8}", r"\1 length ", value[name])  # webp begins with its length
    return _answer(kept) if "headers" in kept else {name: _normal(part, name) for name, part in kept.items()}


def _answer(value: dict[str, Any]) -> Any:
    """An HTTP answer. The length of a JSON body follows from the body; an Etag is a time and a length."""
    headers = dict(value["headers"])
    if "Etag" in headers:
        assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', headers["Etag"]), headers
        headers["Etag"] = "time-length"
    plain = headers.get("Content-Type", "").startswith("text/plain")
    if headers.get("Content-Length", "0") != "0" and not plain:
        headers["Content-Length"] = "some"
    kept = {name: _normal(part, name) for name, part in value.items() if name not in ("headers", "len")}
    if plain:
        kept["len"] = value.get("len")
    return {**kept, "headers": headers}
