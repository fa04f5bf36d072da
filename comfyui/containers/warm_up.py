"""Run one small prompt through a ComfyUI that has just started: `warm_up.py URL PROMPT_FILE DONE_FILE`.

It loads the model and brings the card to work, so that no job has to. DONE_FILE is made once the prompt has succeeded:
the container's health check looks for it. An empty PROMPT_FILE means none is wanted. Runs inside the container, where
there is ComfyUI's Python and nothing of ours; it waits as long as ComfyUI takes.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

LOOK_S = 0.5
ANSWER_S = 60.0


class WarmUpFailed(Exception):
    """The prompt was refused, or ended in an error; the text says what ComfyUI said."""


def main() -> None:
    url, prompt_file, done_file = sys.argv[1:]
    started = time.monotonic()
    wait_until_up(url)
    try:
        if prompt_file:
            run(url, json.loads(Path(prompt_file).read_text(encoding="utf-8")))
    except (WarmUpFailed, OSError, ValueError, LookupError, http.client.HTTPException) as e:
        sys.exit(f"warm-up: {prompt_file}: {e}: this container stays unhealthy, though it may serve other workflows")
    Path(done_file).touch()
    print(f"warm-up: ready after {time.monotonic() - started:.0f} s", flush=True)


def wait_until_up(url: str) -> None:
    """Return when ComfyUI answers."""
    while True:
        try:
            call(url, "/prompt")
            return
        except OSError:
            time.sleep(LOOK_S)


def run(url: str, prompt: dict[str, Any]) -> None:
    """Queue the prompt and wait for its end. Raises WarmUpFailed, or OSError when ComfyUI goes away."""
    try:
        prompt_id = call(url, "/prompt", {"prompt": prompt})["prompt_id"]
    except urllib.error.HTTPError as e:
        raise WarmUpFailed(f"refused: {e.read(2_000).decode(errors='replace')}") from e
    while not (entry := call(url, f"/history/{prompt_id}").get(prompt_id)):
        time.sleep(LOOK_S)
    if entry["status"]["status_str"] != "success":
        raise WarmUpFailed(f"failed: {json.dumps(entry['status']['messages'])[-2_000:]}")


def call(url: str, path: str, body: Any = None) -> Any:
    """The JSON that ComfyUI answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
