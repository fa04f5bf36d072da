"""How soon a page is there, and what its scripts weigh: each visit is the first one, with nothing kept from another."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scripts.figures import Figure, Samples
from scripts.fleet import ROOT, Process
from scripts.tab import Tab

#: Where each page lies, and the one that is looked at beside them.
PAGES: Final = {"studio": "/", "gallery": "/gallery", "fleet": "/fleet", "templates": "/templates"}
PAINTED: Final = ("studio", "gallery")
BARE: Final = "bare page"
MAX_SCRIPTS_KIB: Final = 60.0
PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
#: The scripts that the page has asked for by now, once it is live.
SCRIPTS: Final = (
    "performance.getEntriesByType('resource').map((one) => one.name).filter((name) => name.endsWith('.js'))"
)


def paints(page: Tab, fleet_url: str, rounds: int) -> Iterator[Figure]:
    """Of the pages that show jobs, beside a page of one line from the least server there is."""
    found: dict[str, list[float]] = {}
    with bare_page() as bare_url:
        urls = {BARE: f"{bare_url}?looked-at", **{name: fleet_url + PAGES[name] for name in PAINTED}}
        for number in range(rounds + 1):
            for name, url in urls.items():
                first_paint_ms(page, bare_url)  # to leave it is as light for each
                ms = first_paint_ms(page, url)
                if number:  # the first round warms up
                    found.setdefault(name, []).append(ms)
    yield Samples(found[BARE]).figure(f"{BARE}: first contentful paint", "ms", None, "<=")
    for name in PAINTED:
        yield Samples(found[name]).figure(f"{name}: first contentful paint", "ms", None, "<=")
        beside = Samples.ratios(found[name], found[BARE])
        yield beside.figure(f"{name}: first contentful paint / {BARE}", "ratio", None, "<=")


def first_paint_ms(page: Tab, url: str) -> float:
    """From the beginning of the visit to the first text or picture on the screen."""
    visit(page, url, PAINT)
    return float(page.value(PAINT))


def visit(page: Tab, url: str, until: str) -> None:
    """Go there for the first time, and wait until that is true there."""
    page.call("Network.clearBrowserCache")
    page.call("Page.navigate", {"url": url})
    page.wait(f"location.href === {json.dumps(url)} && {until}")


def scripts_weigh(page: Tab, fleet_url: str) -> Iterator[Figure]:
    """Of what each page loads, and of all there are: as they are served to whoever can unpack them."""
    for name, path in PAGES.items():
        visit(page, fleet_url + path, "document.getElementById('link')?.dataset.link === 'live'")
        yield weight(f"{name}: scripts, gzipped", page.value(SCRIPTS), None)
    every = [f"{fleet_url}/static/{script.name}" for script in (ROOT / "web" / "static").glob("*.js")]
    yield weight("all scripts, gzipped", every, MAX_SCRIPTS_KIB)


def weight(what: str, urls: list[str], goal: float | None) -> Figure:
    return Figure(what, sum(map(packed_bytes, urls)) / 1_024, "KiB", goal, "<=")


def packed_bytes(url: str) -> int:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["Content-Encoding"] == "gzip", f"{url} is not packed"
        return len(answer.read())


@contextmanager
def bare_page() -> Iterator[str]:
    """The address of a page of one line, which needs nothing else."""
    with tempfile.TemporaryDirectory(prefix="comfyfleet-bench-") as folder:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        server = Process("bare", [sys.executable, "-m", "scripts.rivals.bare", folder], Path(folder), environ)
        try:
            yield f"{server.ready().split()[1]}/page"
        finally:
            server.kill()
