"""The laboratory's findings as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scripts.figures import Figure
from scripts.laboratory.measures import Measures
from scripts.laboratory.scenarios import SCENARIOS

#: Around what is renewed in a page.
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
#: Heading -> field of Measures, digits after the point.
COLUMNS = {
    "makespan s": ("makespan_s", 1),
    "wait p50": ("wait_p50_s", 1),
    "wait p95": ("wait_p95_s", 1),
    "done p50": ("done_p50_s", 1),
    "done p95": ("done_p95_s", 1),
    "rest p95": ("rest_p95_s", 1),
    "loads": ("loads", 0),
    "busy": ("busy", 2),
    "Jain": ("jain", 2),
    "slow tail s": ("tail_s", 1),
    "wasted s": ("wasted_s", 1),
}


def text(found: Mapping[str, Mapping[str, Measures]]) -> str:
    lines = []
    for scenario, by_policy in found.items():
        lines += ["", _title(scenario, by_policy), " " * 18 + "".join(f"{heading:>12}" for heading in COLUMNS)]
        for policy, measures in by_policy.items():
            lines.append(f"  {policy:16}" + "".join(f"{cell:>12}" for cell in _cells(measures)))
    return "\n".join(lines)


def markdown(found: Mapping[str, Mapping[str, Measures]], figures: Sequence[Figure], measured: str) -> str:
    """The same for docs/placement-lab.md, and which goals hold. measured: when, and how."""
    lines = [measured, ""]
    for scenario, by_policy in found.items():
        head = [f"**{_title(scenario, by_policy)}**", "", "| policy | " + " | ".join(COLUMNS) + " |"]
        lines += ["", *head, "|" + "---|" * (len(COLUMNS) + 1)]
        lines += [f"| {policy} | " + " | ".join(_cells(measures)) + " |" for policy, measures in by_policy.items()]
    if figures:
        lines += ["", "| goal | found | wanted | |", "|---|---|---|---|"]
    for figure in figures:
        mark = "" if figure.holds else "**missed**"
        lines.append(f"| {figure.figure} | {figure.value:.3f} | {figure.better} {figure.goal:g} | {mark} |")
    return "\n".join(lines).strip() + "\n"


def renewed(page: str, tables: str) -> str:
    """The page with its tables replaced. Raises ValueError when it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} with an {END} after it")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def _title(scenario: str, by_policy: Mapping[str, Measures]) -> str:
    bound_s = next(iter(by_policy.values())).bound_s
    return f"{scenario}: {SCENARIOS[scenario].about}; no policy can end before {bound_s:.1f} s"


def _cells(measures: Measures) -> list[str]:
    return [_number(getattr(measures, field), digits) for field, digits in COLUMNS.values()]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
