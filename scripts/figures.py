"""Figures that a script measured, beside what they should be: a table, JSON for machines, an exit status."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and its goal."""

    figure: str
    value: float
    unit: str
    goal: float
    better: Literal[">=", "<="]

    @property
    def holds(self) -> bool:
        return self.value >= self.goal if self.better == ">=" else self.value <= self.goal


def report(figures: Sequence[Figure], path: Path | None) -> int:
    """Print the table, write the list to `path` if given, and return the exit status: 0 only when all hold."""
    width = max(len(figure.figure) for figure in figures)
    print(f"{'figure':{width}}  {'value':>12}  {'goal':>14}  unit")
    for figure in figures:
        mark = "ok" if figure.holds else "MISSED"
        goal = f"{figure.better} {figure.goal:g}"
        print(f"{figure.figure:{width}}  {figure.value:12.3f}  {goal:>14}  {figure.unit}  {mark}")
    if path is not None:
        rows = [{**dataclasses.asdict(figure), "holds": figure.holds} for figure in figures]
        path.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1
