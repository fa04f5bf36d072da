"""A Chromium and a fleet of real processes; every page of a test must stay free of errors on its console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

from scripts.fleet import Fleet

#: No sandbox: tests may run as root in a container. The rest: no word to anybody but the fleet.
CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
#: Generous: two cores may be shared by everything.
PATIENCE_MS = 60_000


#: Adds up every shift of the layout that no input caused, from now on.
WATCH_LAYOUT = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
  }).observe({ type: "layout-shift" });
}"""
#: Installed by scripts/test.
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


class OpenPage(Protocol):
    def __call__(
        self,
        path: str = ...,
        *,
        faults: bool = ...,
        scripts: bool = ...,
        width: int = ...,
        theme: Literal["light", "dark"] = ...,
        lang: str = ...,
    ) -> Page: ...


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Ended with its module: as long as it lives, no other test of this process can run an event loop."""
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    assert found is not None, "the browser tests need Chromium: scripts/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two workers over simulators slow enough to be watched."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with Fleet(folder, workers=2, simulator=["--step-s", "0.15"]) as running:
        yield running


@pytest.fixture
def open_page(chromium: Browser, fleet: Fleet) -> Iterator[OpenPage]:
    """Opens a page in a browser of its own and waits until it is live.

    faults: the test breaks the connection itself, and the browser will say so. lang: what the browser prefers.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def note(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            complaints.append(said.text)

    def opened(
        path: str = "/",
        *,
        faults: bool = False,
        scripts: bool = True,
        width: int = 1280,
        theme: Literal["light", "dark"] = "light",
        lang: str = "en-US",
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts, locale=lang
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", dismiss)
        if not faults:
            page.on("console", note)
        page.goto(fleet.url + path)
        if scripts:
            page.wait_for_selector("#link[data-link=live]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def hindrances() -> Callable[[Page], list[str]]:
    """What axe-core finds on a page, as it looks now, that would hinder a person: its rule, how bad, and where."""
    assert AXE.is_file(), "the browser tests need axe-core: scripts/test installs it"
    source = AXE.read_text("utf-8")

    def found(page: Page) -> list[str]:
        page.evaluate(source)
        violations = page.evaluate(
            "async () => (await axe.run(document, { rules: { 'target-size': { enabled: true } } })).violations"
        )
        return [
            f"{one['id']} ({one['impact']}): {', '.join(str(node['target'][0]) for node in one['nodes'])}"
            for one in violations
        ]

    return found


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()
