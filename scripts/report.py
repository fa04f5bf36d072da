"""What a run of suites finds, told and kept as it comes: one that is cut off has told what it had.

docs/benchmarks.md: for each suite what it found, on what and when. A run renews the parts of the suites it ran. What a
person wrote between the parts stays. Pictures of curves lie beside the page and need matplotlib (extra `bench`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.figures import Curves, Figure, Found, line, report, write

HEAD = """# Benchmarks

The tables and pictures here are written by `scripts/bench --page docs/benchmarks.md`. Each figure is the median of
things done side by side in one run, beside the least and the most. Absolute times are those of the machine named;
what is promised is the goal. Where there is none, the figure is told for what it is worth.
"""
QUICK = "**A quick run**: one small round of each, which shows that the bench runs and not whether a goal holds."
CUT_OFF = "**Cut off**: the figures that were there by then."
#: Of most names, while they come.
WIDTH = 64
#: What a line of a picture is drawn with.
INKS = ("#2f6fed", "#9aa3b2", "#d9822b", "#3d9970", "#b04ab0")


class Run:
    """json, page: where what is found is kept, if anywhere."""

    def __init__(self, suites: Mapping[str, Any], *, quick: bool, json: Path | None, page: Path | None) -> None:
        self._suites = suites
        self._quick = quick
        self._json = json
        self._page = page
        self._figures: list[Figure] = []

    def take(self, name: str, things: Generator[Found]) -> None:
        """All that a suite finds; if it is cut off, what it had found."""
        found: list[Found] = []
        notes = [QUICK] if self._quick else []
        try:
            with contextlib.closing(things):
                for each in things:
                    found.append(each)
                    self._tell(each)
        except BaseException:
            notes.append(CUT_OFF)
            raise
        finally:
            if self._page is not None and found:
                renew(self._page, name, _part(name, self._suites[name], found, self._page.parent, notes))

    def _tell(self, each: Found) -> None:
        if isinstance(each, Figure):
            self._figures.append(each)
            write(self._figures, self._json)
            print(line(each, WIDTH))

    def report(self) -> int:
        """Everything once more, in one table; the exit status is 0 only when all of it holds."""
        return report(self._figures, self._json)


def renew(path: Path, name: str, part: str) -> None:
    """Write a suite's part into the page, which is made if it is not there."""
    page = path.read_text() if path.exists() else HEAD
    begin, end = f"<!-- suite {name} -->", f"<!-- end of {name} -->"
    part = f"{begin}\n{part}{end}"
    old = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    path.write_text(old.sub(lambda _: part, page) if old.search(page) else f"{page.rstrip()}\n\n{part}\n")


def purpose(suite: Any) -> str:
    """What a suite measures, in its own words."""
    return " ".join((suite.__doc__ or "").split())


def _part(name: str, suite: Any, found: Sequence[Found], folder: Path, notes: Sequence[str]) -> str:
    rows = [_row(each) for each in found if isinstance(each, Figure)]
    table = "\n".join(["| figure | median | least .. most | unit | goal | |", "|---|---|---|---|---|---|", *rows])
    curves = [each for each in found if isinstance(each, Curves)]
    pictures = [_draw(each, folder, f"bench-{name}-{number}.svg") for number, each in enumerate(curves, 1)]
    return "\n\n".join(filter(None, [f"## {name}", purpose(suite), _machine(suite), *notes, table, *pictures])) + "\n\n"


def _row(figure: Figure) -> str:
    spread = "" if figure.spread is None else " .. ".join(f"{value:,.3g}" for value in figure.spread)
    goal, mark = "", ""
    if figure.goal is not None:
        goal, mark = f"{figure.better} {figure.goal:g}", "" if figure.holds else "**missed**"
    return f"| {figure.figure} | {figure.value:,.3g} | {spread} | {figure.unit} | {goal} | {mark} |"


def _machine(suite: Any) -> str:
    import msgpack
    import zmq

    versions = {
        "Python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": ".".join(map(str, msgpack.version)),
        **(suite.beside() if hasattr(suite, "beside") else {}),
    }
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} processors, {_processor()}; {system}; {told}."


def _processor() -> str:
    """What the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _draw(curves: Curves, folder: Path, name: str) -> str:
    """The picture's place in the page; "" where nothing can draw."""
    if importlib.util.find_spec("matplotlib") is None:
        print(f"bench: no picture of {curves.title!r}: scripts/setup bench installs what draws it")
        return ""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.4))
    for ink, (label, points) in zip(INKS, curves.lines.items(), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", color=ink, label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(curves.size)
    axes.set_ylabel(curves.cost)
    axes.set_title(curves.title, loc="left", fontsize=11)
    axes.grid(color="#e6e8ec")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(folder / name, metadata={"Date": None})
    pyplot.close(figure)
    return f"![{curves.title}]({name})"
