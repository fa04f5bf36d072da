"""Plays the client's side of recordings against a live server over real sockets, and writes down what comes back.

The same requests in the same order on connections of the same names. Before it acts it waits until every open socket
has heard what the recorded client had heard by then. Ids that the server draws are translated both ways.
"""

import asyncio
import json
import re
from collections import Counter
from contextlib import suppress
from io import BytesIO
from typing import Any

import aiohttp
from PIL import Image
from yarl import URL

from comfyui.simulator.process import SimulatorProcess
from tests.contract.simulator.recording import HEADERS, Line, unfinished

#: How long anything may take to come before the replay gives up; only a failing test waits that long.
PATIENCE_S = 60.0
#: A recorded client that did nothing for longer than this was waiting for time to pass.
PAUSE_S = 1.0
#: For how long the replay does the same.
SHORT_PAUSE_S = 0.4
#: Where the recorded servers listened.
RECORDED_PORTS = re.compile(r":818[89]\b")
ENDINGS = {"SIGKILL sent": 9, "SIGTERM while idle": 15, "SIGINT while running": 2}


class Replay:
    """One scenario against one server. `ids` (recorded → real) outlives it: a later scenario may name earlier ids."""

    def __init__(self, server: SimulatorProcess, ids: dict[str, str], lines: list[Line]) -> None:
        self._server = server
        self._ids = ids
        self._lines = lines
        self._cut_short = unfinished(lines)
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._closed_by_us: set[str] = set()
        self._news = asyncio.Event()
        self._numbers: dict[float, list[tuple[str, str]]] = {}
        #: What was heard: sockets' messages as they came, and the answer to each recorded request in its turn.
        self.heard: list[Line] = []
        self.answers: list[Line] = []
        #: Answers to the notes that say what a list of history was like.
        self.lists: list[dict[str, Any]] = []

    async def play(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            try:
                for place, line in enumerate(self._lines):
                    await self._act(session, place, line)
                await self._hear(len(self._lines))
            finally:
                for reader in self._readers.values():
                    reader.cancel()
                for socket in self._sockets.values():
                    await socket.close()

    async def _act(self, session: aiohttp.ClientSession, place: int, line: Line) -> None:
        before = [earlier.t for earlier in self._lines[:place] if earlier.kind != "note"]
        paused = bool(before) and line.t - before[-1] > PAUSE_S
        if line.kind == "open":
            await self._hear(place)
            await self._open(session, line, paused)
        elif line.kind == "http_request":
            await self._hear(place)
            await self._request(session, place, line, paused)
        elif line.kind == "client_close":
            await self._hear(place)
            self._closed_by_us.add(line.conn)
            await self._sockets[line.conn].close()
            await self._readers[line.conn]
        elif line.kind == "note":
            await self._note(place, line)
        elif line.dir == "send":
            await self._send(line)

    # Waiting

    async def _hear(self, place: int) -> None:
        """Waits until every socket has heard what it had heard here in the recording."""
        for conn in self._sockets:
            wanted = _counts([line for line in self._lines[:place] if line.conn == conn], self._cut_short)

            def enough(conn: str = conn, wanted: tuple[int, Counter[str]] = wanted) -> bool:
                mine = [line for line in self.heard if line.conn == conn]
                whole, steps = _counts(mine, {(self._ids.get(p, p), node) for p, node in self._cut_short})
                ahead = {self._ids.get(p, p): min(count, 4) for p, count in wanted[1].items()}
                return whole >= wanted[0] and all(steps[p] >= count for p, count in ahead.items())

            await self._until(enough, f"{conn} to hear what was recorded up to line {place + 1}")

    async def _until(self, condition: Any, what: str) -> None:
        async def wait() -> None:
            while not condition():
                self._news.clear()
                await self._news.wait()

        try:
            await asyncio.wait_for(wait(), PATIENCE_S)
        except TimeoutError:
            heard = "\n".join(str(line) for line in self.heard[-8:])
            raise AssertionError(f"waited in vain for {what}; last heard:\n{heard}") from None

    # Sockets

    async def _open(self, session: aiohttp.ClientSession, line: Line, paused: bool) -> None:
        if paused:
            await asyncio.sleep(SHORT_PAUSE_S)  # the recorded client stayed away for a while, too
        url = self._server.url + self._real(line.payload["url"])
        socket = await session.ws_connect(url, max_msg_size=0)
        self._sockets[line.conn] = socket
        self._readers[line.conn] = asyncio.create_task(self._read(line.conn, socket))
        self._write(line.conn, "ws", "open", {"url": line.payload["url"], "status": 101})

    async def _read(self, conn: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._write(conn, "recv", "text", json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.BINARY:
                self._write(conn, "recv", "binary", _binary(message.data))
        code = None if conn in self._closed_by_us else socket.close_code
        self._write(conn, "ws", "closed", {"close_code": code})

    async def _send(self, line: Line) -> None:
        socket = self._sockets[line.conn]
        if line.kind == "text":
            await socket.send_json(line.payload)
        elif line.kind == "ping":
            await socket.ping()
        else:
            big = re.fullmatch(r"<(\d+) MiB text>", line.payload)
            with suppress(ConnectionError):  # the server hangs up while a frame beyond its limit is still on the way
                await socket.send_str("x" * (int(big[1]) << 20) if big else line.payload)

    def _write(self, conn: str, direction: str, kind: str, payload: Any) -> None:
        self.heard.append(Line(0.0, direction, conn, kind, payload))
        self._news.set()

    # Requests

    async def _request(self, session: aiohttp.ClientSession, place: int, line: Line, paused: bool) -> None:
        recorded = next(later for later in self._lines[place:] if later.kind == "http_response")
        answer = await self._ask(session, line)
        if (
            paused and line.payload["method"] == "GET"
        ):  # the recorded client had waited for this, without a socket that would tell it
            await asyncio.sleep(SHORT_PAUSE_S)
            for _ in range(int(PATIENCE_S / 0.05)):
                answer = await self._ask(session, line)
                if bool(answer.get("json")) == bool(recorded.payload.get("json")):
                    break
                await asyncio.sleep(0.05)
        if isinstance(answer.get("json"), dict) and "prompt_id" in answer["json"]:
            self._learn_prompt(line.payload["json"], recorded.payload["json"], answer["json"])
        self.answers.append(Line(0.0, "recv", line.conn, "http_response", answer))

    async def _ask(self, session: aiohttp.ClientSession, line: Line) -> dict[str, Any]:
        asked = json.loads(self._real(json.dumps(line.payload)))
        port = f":{self._server.port}"
        headers = {name: RECORDED_PORTS.sub(port, value) for name, value in asked.get("headers", {}).items()}
        body: dict[str, Any] = {"json": asked["json"]} if "json" in asked else {"data": asked.get("raw")}
        if "form" in asked:
            body = {"data": _form(asked["form"])}
        path = asked["path"]
        url = URL(self._server.url + path, encoded="?" not in path)  # a path with %2F in it must stay as it is
        async with session.request(asked["method"], url, headers=headers, allow_redirects=False, **body) as response:
            return await _answer(response)

    async def _note(self, place: int, line: Line) -> None:
        text = line.payload
        if isinstance(text, str) and text in ENDINGS:
            await self._hear(next((n for n in range(place, len(self._lines)) if self._closes(n)), place))
            self._server.signal(ENDINGS[text])
            status = self._server.wait()
            expected = next(later for later in self._lines[place:] if self._says_status(later) or later.kind == "open")
            if self._says_status(expected):
                assert status == expected.payload["exit code"], f"after {text}"
            if any(later.kind in ("open", "http_request") for later in self._lines[place:]):
                self._server.restart()
        elif isinstance(text, dict) and "query" in text:
            body = self.answers[-1].payload["json"]
            self.lists.append({"query": text["query"], "n": len(body), "first": list(body)[:2]})

    def _closes(self, place: int) -> bool:
        return self._lines[place].kind == "closed"

    def _says_status(self, line: Line) -> bool:
        return isinstance(line.payload, dict) and "exit code" in line.payload

    # Ids

    def _learn_prompt(self, asked: dict[str, Any], recorded: dict[str, Any], real: dict[str, Any]) -> None:
        """Takes down which id the server drew, and gives the answer the recorded one.

        Prompts posted with the same number run in the order of their ids, which nobody chose: they are paired by it.
        """
        if recorded["prompt_id"] == asked.get("prompt_id"):
            return
        twins = self._numbers.setdefault(asked["number"], []) if "number" in asked else []
        twins.append((recorded["prompt_id"], real["prompt_id"]))
        for pair in zip(sorted(r for r, _ in twins), sorted(r for _, r in twins), strict=True):
            self._learn(*pair)
        real["prompt_id"] = recorded["prompt_id"]

    def _learn(self, recorded: str, real: str) -> None:
        if recorded != real:
            self._ids[recorded] = real

    def _real(self, text: str) -> str:
        for recorded, real in self._ids.items():
            text = text.replace(recorded, real)
        return text

    def recorded(self, line: Line) -> Line:
        """The line with the recorded ids in place of the real ones."""
        text = json.dumps(line.payload)
        for recorded, real in self._ids.items():
            text = text.replace(real, recorded)
        return Line(line.t, line.dir, line.conn, line.kind, json.loads(text))

    def learn_greeting(self, conn: str, recorded: str) -> None:
        """The id that the server gave a socket which came without one."""
        greeting = next(line for line in self.heard if line.conn == conn and line.kind == "text")
        self._learn(recorded, greeting.payload["data"]["sid"])


def _counts(lines: list[Line], cut_short: set[tuple[str, str]]) -> tuple[int, Counter[str]]:
    """How many messages a socket heard, and how many steps of each prompt that is cut short.

    Previews and progress_state count as neither: they come with steps, before or after.
    """
    whole, steps = 0, Counter[str]()
    for line in lines:
        payload = line.payload
        if line.kind == "closed":
            whole += 1
        elif line.kind == "text" and line.dir == "recv":
            data = payload.get("data", {})
            if payload.get("type") == "progress" and (data["prompt_id"], data["node"]) in cut_short:
                steps[data["prompt_id"]] += 1
            elif payload.get("type") != "progress_state":
                whole += 1
    return whole, steps


def _binary(data: bytes) -> dict[str, Any]:
    """A binary message as a recording shows it."""
    kind = int.from_bytes(data[:4], "big")
    shown: dict[str, Any] = {"type": kind, "len": len(data), "first_bytes_hex": data[:32].hex()}
    length = int.from_bytes(data[4:8], "big")
    if kind == 1:
        return shown | {"image_format_int": length, "image_len": len(data) - 8}
    picture = data[8 + length :]
    shown |= {"metadata_len": length, "metadata": json.loads(data[8 : 8 + length])}
    return shown | {"image_first_bytes_hex": picture[:16].hex(), "image_len": len(picture)}


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """An HTTP answer as a recording shows it."""
    body = await response.read()
    headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
    shown: dict[str, Any] = {"status": response.status, "headers": headers, "len": len(body)}
    kind = headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        shown["json"] = json.loads(body)
    elif kind.startswith("text/") and body:
        shown["text"] = body.decode()
    elif body:
        shown["first_bytes_hex"] = body[:16].hex()
    return shown


def _form(fields: list[list[str]]) -> aiohttp.FormData:
    """The multipart form a recording describes; "<98 bytes, filename=up.png>" stands for such a file."""
    form = aiohttp.FormData()
    for name, value in fields:
        described = re.fullmatch(r"<(\d+) bytes, filename=(.*)>", value)
        if described:
            content = _file(int(described[1]), described[2])
            form.add_field(name, BytesIO(content), filename=described[2], content_type="application/octet-stream")
        else:
            form.add_field(name, value)
    return form


def _file(size: int, name: str) -> bytes:
    """A picture of so many bytes (what follows a PNG's end is ignored); "broken" ones are none."""
    if name.startswith("broken"):
        return b"this is not an image"[:size].ljust(size)
    buffer = BytesIO()
    Image.new("RGBA" if name.startswith("m") else "RGB", (8, 8), "teal").save(buffer, format="PNG")
    return buffer.getvalue().ljust(size, b"\0")
