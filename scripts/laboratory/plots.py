"""Pictures of what the laboratory found, for docs/. Needs the extra `lab` (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.laboratory.judge import OURS
from scripts.laboratory.measures import Measures

#: What one sees of a scenario's policies, each beside the best of them: field of Measures -> title.
SHOWN = {
    "done_p95_s": "95 % of jobs done within, best = 1",
    "makespan_s": "everything done after, best = 1",
    "loads": "model loads, least = 1",
}
#: Worse than this is drawn as this: what matters is who is near the best.
MOST = 4.0
INK, OUR_INK = "#9aa3b2", "#2f6fed"


def save(found: Mapping[str, Mapping[str, Measures]], folder: Path) -> list[Path]:
    """One picture for each measure; answers their files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for field, title in SHOWN.items():
        figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(found) + 1.6))
        _draw(axes, found, field)
        axes.set_title(title, loc="left", fontsize=11)
        figure.tight_layout()
        files.append(folder / f"placement-{field.removesuffix('_s').replace('_', '-')}.svg")
        figure.savefig(files[-1], metadata={"Date": None})
        pyplot.close(figure)
    return files


def _draw(axes: Any, found: Mapping[str, Mapping[str, Measures]], field: str) -> None:
    """A row for each scenario, a dot for each policy."""
    names = list(found)
    for row, name in enumerate(names):
        values = {policy: getattr(measures, field) for policy, measures in found[name].items()}
        best = min(values.values())
        for policy, value in values.items():
            ours = policy == OURS
            dot = {"color": OUR_INK if ours else INK, "s": 70 if ours else 36, "zorder": 3 if ours else 2}
            axes.scatter(min(MOST, value / best), row, **dot)
    axes.scatter([], [], color=OUR_INK, s=70, label=OURS)
    axes.scatter([], [], color=INK, s=36, label="others")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0.9, MOST + 0.1)
    axes.set_xticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4 or more"])
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.grid(axis="y", color="#e6e8ec")
    axes.set_axisbelow(True)
    axes.legend(loc="upper right", frameon=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
