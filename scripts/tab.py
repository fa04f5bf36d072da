"""A page of Chromium that is steered and not listened to. Playwright records what every page of its own loads: the page
then keeps each picture for it, and stands still for some 30 ms whenever it lets go of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WAIT_S = 60.0


class Tab:
    """Source: the Chrome DevTools Protocol, domains Target, Runtime and Input."""

    def __init__(self, browser: Browser, url: str, *, width: int, height: int) -> None:
        self._browser = browser.new_browser_cdp_session()
        self._browser.on("Target.receivedMessageFromTarget", self._take)
        self._answers: dict[int, Any] = {}
        self._asked = 0
        made = self._browser.send("Target.createTarget", {"url": url, "width": width, "height": height})
        # Flat sessions are Playwright's own.
        attached = self._browser.send("Target.attachToTarget", {"targetId": made["targetId"], "flatten": False})
        self._session = attached["sessionId"]

    def value(self, expression: str) -> Any:
        """What the expression is in the page."""
        answer = self._call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
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
        self._call(
            "Input.dispatchMouseEvent", {"type": "mouseWheel", "x": 700, "y": 500, "deltaX": 0, "deltaY": pixels}
        )

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params}
        self._browser.send("Target.sendMessageToTarget", {"sessionId": self._session, "message": json.dumps(message)})
        until = time.monotonic() + WAIT_S
        while self._asked not in self._answers:
            if time.monotonic() > until:
                raise TimeoutError(f"the page did not answer {method} within {WAIT_S:g} s")
            # Answers are taken in while another is waited for.
            self._browser.send("Browser.getVersion")
        answer = self._answers.pop(self._asked)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _take(self, event: Any) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._answers[message["id"]] = message
