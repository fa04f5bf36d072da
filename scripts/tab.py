"""A page of a Chromium of its own, steered and not listened to: one socket to the page, and whoever asks waits for the
answer. A driver that listens makes the page keep every picture it loads, and its own processes take turns with the
page on a machine of few cores."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from scripts.orphans import Child

WAIT_S = 60.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-sync", "--disable-extensions", "--remote-debugging-port=0",
)  # fmt: skip


@contextmanager
def tab(chromium: str, folder: Path, url: str, *, width: int, height: int) -> Iterator[Tab]:
    """A window of that size that shows the address, until the context is left. folder: a new one, for its profile."""
    command = [chromium, *FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
    with Child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            page = Tab(_address(folder / "DevToolsActivePort"))
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            page.call("Emulation.setDeviceMetricsOverride", size)
            page.call("Page.navigate", {"url": url})
            yield page
            page.close()
        finally:
            browser.terminate()


def _address(told: Path) -> str:
    """Where the browser's one page is steered, once the browser has written down its port."""
    until = time.monotonic() + WAIT_S
    while not told.exists() or "\n" not in told.read_text():
        if time.monotonic() > until:
            raise TimeoutError(f"Chromium did not start within {WAIT_S:g} s")
        time.sleep(0.05)
    port = told.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT_S) as answer:
        return next(str(one["webSocketDebuggerUrl"]) for one in json.loads(answer.read()) if one["type"] == "page")


class Tab:
    """Source: the Chrome DevTools Protocol, domains Runtime, Input, Tracing and IO."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=WAIT_S, suppress_origin=True)
        self._asked = 0
        self._traced = ""

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": params or {}}))
        while True:
            message = self._heard()
            if message.get("id") == self._asked:
                break
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def value(self, expression: str) -> Any:
        """What the expression is in the page."""
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until it is true. Raises TimeoutError."""
        until = time.monotonic() + WAIT_S
        while not self.value(expression):
            if time.monotonic() > until:
                raise TimeoutError(f"after {WAIT_S:g} s the page is not yet: {expression}")
            time.sleep(0.05)

    def wheel(self, pixels: int) -> None:
        """Turn the wheel, the pointer being in the middle of the page."""
        turned = {"type": "mouseWheel", "x": 700, "y": 500, "deltaX": 0, "deltaY": pixels}
        self.call("Input.dispatchMouseEvent", turned)

    def trace(self, categories: Sequence[str]) -> None:
        """Begin to record."""
        config = {"recordMode": "recordUntilFull", "excludedCategories": ["*"], "includedCategories": list(categories)}
        self.call("Tracing.start", {"transferMode": "ReturnAsStream", "traceConfig": config})

    def traced(self) -> Any:
        """What was recorded."""
        self.call("Tracing.end")
        while not self._traced:
            self._heard()
        parts, over = [], False
        while not over:
            part = self.call("IO.read", {"handle": self._traced, "size": 1 << 22})
            parts.append(part["data"])
            over = part["eof"]
        self._traced = ""
        return json.loads("".join(parts))

    def _heard(self) -> Any:
        message = json.loads(self._socket.recv())
        if message.get("method") == "Tracing.tracingComplete":
            self._traced = message["params"]["stream"]
        return message
