"""How late a job's end is at fifty browsers, by the time in its record, while ten others do not read; and what those
find who read again: one that does so soon has missed nothing that a newer event did not replace, one that does not is
closed, and told why if it still listens."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.browsers import Audience, Browser
from scripts.clients import Api, pictures
from scripts.figures import Figure
from scripts.fleet import Fleet

READING, STALLED = 50, 10
JOBS_PER_S = 20
#: Seconds after which those that stalled read again: one soon, the others from when they may be closed on.
SOON_S, LATER_S = 12.0, (15.0, 32.0)
#: In so long one has read all that waited for it.
READ_S = 1.5
#: What the kernel may hold for those that do not read: their mailbox fills the sooner.
RECEIVE_BYTES = 32 << 10
#: web.frames.Close.TOO_SLOW
TOO_SLOW = 4408


def measure(*, quick: bool) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder,
        Fleet(Path(folder), workers=2, simulator=["--zero-work"], settings={"log.level": "warning"}) as fleet,
        submitting(fleet.url),
    ):
        audience = Audience(fleet.url, READING)
        listen(audience, time.monotonic() + (3.0 if quick else 15.0))
        calm = list(audience.delays_ms)
        stalled = [Browser(fleet.url, receive_bytes=RECEIVE_BYTES) for _ in range(2 if quick else STALLED)]
        began_s = time.monotonic()
        soon, *late = stalled
        audience.delays_ms.clear()
        listen(audience, began_s + SOON_S)
        events = drained(audience, soon)
        first_s, last_s = LATER_S
        for number, browser in enumerate(late):
            listen(audience, began_s + first_s + (last_s - first_s) * number / max(1, len(late) - 1))
            drained(audience, browser)
        during = list(audience.delays_ms)
        for browser in stalled:
            browser.close()
        audience.close()
    codes = [browser.closed for browser in late]
    print(f"stalled: p99 {p99(calm):.0f} ms of {len(calm)} before, {p99(during):.0f} ms of {len(during)} while some do")
    print(f"stalled: who read again after {first_s:g} to {last_s:g} s found {codes}")
    yield Figure("end of a job to another browser, p99", p99(during), "ms", 250.0, "<=")
    yield Figure("who reads again soon: still there", float(soon.closed is None), "browsers", 1, ">=")
    yield Figure("who reads again soon: events merged", sum(e["type"] == "skip" for e in events), "events", 1, ">=")
    yield Figure("who does not: told why", codes.count(TOO_SLOW), "browsers", 1, ">=")
    yield Figure("who does not: still there in the end", float(codes[-1] is None), "browsers", 0, "<=")


@contextlib.contextmanager
def submitting(url: str) -> Iterator[None]:
    stop = threading.Event()
    submits = threading.Thread(target=submit, args=(url, stop))
    submits.start()
    try:
        yield
    finally:
        stop.set()
        submits.join()


def submit(url: str, stop: threading.Event) -> None:
    """So many jobs a second."""
    api, workflows = Api(url), pictures()
    next_s = time.monotonic()
    while not stop.is_set():
        api.call("POST", "/api/v1/jobs", {"workflow": next(workflows)})
        next_s += 1 / JOBS_PER_S
        time.sleep(max(0.0, next_s - time.monotonic()))
    api.close()


def listen(audience: Audience, until_s: float) -> None:
    audience.listen(lambda: time.monotonic() >= until_s)


def drained(audience: Audience, browser: Browser) -> list[dict[str, object]]:
    """All that waits for a browser; the others listen meanwhile."""
    events: list[dict[str, object]] = []
    until_s = time.monotonic() + READ_S

    def done() -> bool:
        events.extend(browser.read())
        return browser.closed is not None or time.monotonic() >= until_s

    audience.listen(done)
    return events


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else float("inf")
