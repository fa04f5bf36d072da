"""Figures that a script measured, beside what they should be: a table, JSON, an exit status. And curves."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and its goal."""

    figure: str
    value: float
    unit: str
    #: None: told for what it is worth, and nothing is asked of it.
    goal: float | None
    better: Literal[">=", "<="]
    #: The least and the most of the values it is the median of.
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.better == ">=" else self.value <= self.goal

    def row(self) -> dict[str, Any]:
        """As machines read it."""
        return {**dataclasses.asdict(self), "holds": self.holds}


@dataclasses.dataclass(frozen=True, slots=True)
class Samples:
    """Values of one figure, each taken side by side with what it is compared with, in one run."""

    values: Sequence[float]

    @classmethod
    def ratios(cls, mine: Sequence[float], theirs: Sequence[float]) -> Self:
        """Of each round, what one found over what the other did."""
        return cls([one / other for one, other in zip(mine, theirs, strict=True)])

    def figure(self, name: str, unit: str, goal: float | None, better: Literal[">=", "<="]) -> Figure:
        """Their median."""
        return Figure(name, statistics.median(self.values), unit, goal, better, (min(self.values), max(self.values)))


@dataclasses.dataclass(frozen=True, slots=True)
class Curves:
    """What something costs at several sizes, to be drawn: one line for each name, of (size, cost)."""

    title: str
    size: str
    cost: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


Found = Figure | Curves


def table(figures: Sequence[Figure]) -> list[str]:
    width = max(len(figure.figure) for figure in figures)
    head = f"{'figure':{width}}  {'value':>10}  {'min .. max':>20}  {'goal':>10}  unit"
    return [head, *(line(figure, width) for figure in figures)]


def line(figure: Figure, width: int = 0) -> str:
    """Of a table whose names are so wide."""
    spread = "" if figure.spread is None else "{:.2f} .. {:.2f}".format(*figure.spread)
    goal, mark = "", ""
    if figure.goal is not None:
        goal, mark = f"{figure.better} {figure.goal:g}", "ok" if figure.holds else "MISSED"
    name = f"{figure.figure:{width}}"
    return f"{name}  {figure.value:10.3f}  {spread:>20}  {goal:>10}  {figure.unit}  {mark}".rstrip()


def report(figures: Sequence[Figure], path: Path | None) -> int:
    """Print the table, write the list to `path` if given, and return the exit status: 0 only when all hold."""
    print("\n".join(table(figures)))
    write(figures, path)
    return 0 if all(figure.holds for figure in figures) else 1


def write(figures: Sequence[Figure], path: Path | None) -> None:
    """The list, as machines read it; whole, whenever it is read."""
    if path is not None:
        written = path.with_name(f"{path.name}.new")
        written.write_text(json.dumps([figure.row() for figure in figures], indent=1) + "\n")
        written.replace(path)


def writable(text: str) -> Path:
    """An argument: a file to write when all is measured; that it cannot be is better known before."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text}: name a file in a folder that is there")
    return path
