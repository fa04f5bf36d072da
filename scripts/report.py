"""docs/benchmarks.md: for each suite what it found, on what and when. A run renews the parts of the suites it ran.

What a person wrote between the parts stays. Pictures of curves lie beside the page and need matplotlib (extra `bench`).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.figures import Curves, Figure, Found

HEAD = """# Benchmarks

The tables and pictures here are written by `scripts/bench --page docs/benchmarks.md`. Each figure is the median of
things done side by side in one run, beside the least and the most. Absolute times are those of the machine named;
what is promised is the goal. Where there is none, the figure is told for what it is worth.
"""
QUICK = "**A quick run**: one small round of each, which shows that the bench runs and not whether a goal holds."
#: What a line of a picture is drawn with.
INKS = ("#2f6fed", "#9aa3b2", "#d9822b", "#3d9970", "#b04ab0")


def renew(path: Path, suites: Mapping[str, Any], found: Mapping[str, Sequence[Found]], *, quick: bool) -> None:
    """Write what was found into the page, which is made if it is not there."""
    page = path.read_text() if path.exists() else HEAD
    for name, things in found.items():
        begin, end = f"<!-- suite {name} -->", f"<!-- end of {name} -->"
        part = f"{begin}\n{_part(name, suites[name], things, path.parent, quick=quick)}{end}"
        old = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page = old.sub(lambda _, part=part: part, page) if old.search(page) else f"{page.rstrip()}\n\n{part}\n"
    path.write_text(page)


def purpose(suite: Any) -> str:
    """What a suite measures, in its own words."""
    return " ".join((suite.__doc__ or "").split())


def _part(name: str, suite: Any, found: Sequence[Found], folder: Path, *, quick: bool) -> str:
    rows = [_row(each) for each in found if isinstance(each, Figure)]
    table = "\n".join(["| figure | median | least .. most | unit | goal | |", "|---|---|---|---|---|---|", *rows])
    curves = [each for each in found if isinstance(each, Curves)]
    pictures = [_draw(each, folder, f"bench-{name}-{number}.svg") for number, each in enumerate(curves, 1)]
    return (
        "\n\n".join(
            filter(None, [f"## {name}", purpose(suite), _machine(suite), QUICK if quick else "", table, *pictures])
        )
        + "\n\n"
    )


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
