"""A plain client for tests: HTTP with urllib, one WebSocket, and the prompts they post."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from websocket import WebSocket, create_connection

PATIENCE_S = 60.0
#: Steps of a prompt that a test cuts short: more than it comes to, however long the test is held up.
LONG = 1_000
MODEL = "juggernautXL_v8Rundiffusion.safetensors"


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    """GET, or POST of JSON where a body is given. Raises OSError or HTTPException when there is no whole answer."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers if headers is not None else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as e:
        with e:
            return Answer(e.code, e.read())


@contextmanager
def listening(url: str, client_id: str = "ear", flags: bool = True) -> Iterator[WebSocket]:
    """A socket that has been greeted and, unless told otherwise, has negotiated previews with metadata."""
    socket = create_connection(f"{url.replace('http', 'ws')}/ws?clientId={client_id}", timeout=PATIENCE_S)
    try:
        json.loads(socket.recv())
        if flags:
            socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            json.loads(socket.recv())
        yield socket
    finally:
        socket.close(timeout=1)


def hear_until(socket: WebSocket, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """JSON messages up to the first that is wanted; binary ones appear as {"type": "binary", "data": bytes}."""
    heard: list[dict[str, Any]] = []
    while not heard or not wanted(heard[-1]):
        message = socket.recv()
        heard.append(json.loads(message) if isinstance(message, str) else {"type": "binary", "data": message})
    return heard


def ends(prompt_id: str) -> Callable[[dict[str, Any]], bool]:
    """Recognises the mark that a prompt has ended."""

    def is_end(message: dict[str, Any]) -> bool:
        data = message["data"]
        return bool(message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id)

    return is_end


def eventually(look: Callable[[], Any], what: str) -> Any:
    """What `look` gives as soon as it is true; it is asked again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def post(url: str, graph: dict[str, Any], client_id: str = "ear", **more: Any) -> str:
    """Posts a prompt that must be accepted; its id."""
    answer = ask(f"{url}/prompt", {"prompt": graph, "client_id": client_id, **more})
    assert answer.status == 200, answer
    return str(answer.json["prompt_id"])


def run(url: str, graph: dict[str, Any]) -> dict[str, Any]:
    """Posts a prompt and waits until it is in the history; its entry."""
    prompt_id = post(url, graph)
    entry = eventually(lambda: ask(f"{url}/history/{prompt_id}").json.get(prompt_id), f"the end of {prompt_id}")
    assert isinstance(entry, dict)
    return entry


def files(entry: dict[str, Any]) -> list[str]:
    """Query strings for /view of all pictures in a history entry."""
    return [
        f"filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}"
        for shown in entry["outputs"].values()
        for file in shown["images"]
    ]


def flat(colour: int = 5, prefix: str = "flat") -> dict[str, Any]:
    """A prompt without a model."""
    empty = {"width": 32, "height": 24, "batch_size": 1, "color": colour}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def painting(words: str = "a lighthouse at dusk", seed: int = 1, steps: int = 4, side: int = 256) -> dict[str, Any]:
    """A text-to-image prompt."""
    latent = {"width": side, "height": side, "batch_size": 1}
    sampling: dict[str, Any] = {"seed": seed, "steps": steps, "cfg": 7.0, "denoise": 1.0}
    sampling |= {"sampler_name": "euler", "scheduler": "normal"}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": sampling | links},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": MODEL}},
        "5": {"class_type": "EmptyLatentImage", "inputs": latent},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "painting"}},
    }
