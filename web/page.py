"""The page as HTML: pure functions from a snapshot to text, so that the first paint holds the jobs and the workers.

Never decides what is shown to whom: the snapshot holds only what the viewer may see. Data enters the HTML escaped, or
as JSON in a block that no parser can leave; there is no inline script or style, so POLICY can forbid both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import bottle

from web import describe
from web.describe import WORDS, Record, say
from web.viewer import Viewer

#: The Content-Security-Policy of every page. blob: is for previews, which the page makes from the bytes of its socket.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: The template whose form the page opens with, and the first to pick; where it is missing, the first there is.
HOME_TEMPLATE: Final = "text-to-image"

#: Cards of each list in the first paint: more than any screen shows. The browser adds the others from the same data.
PAINTED: Final = 60

_VIEWS = Path(__file__).parent / "views"

#: What the <template> of a card is rendered from: the browser fills in everything.
_BLANK_JOB: Final[Record] = {
    **dict.fromkeys(("id", "title", "template", "owner"), ""),
    **dict.fromkeys(("worker", "phase", "progress", "error", "timings", "started_ms", "finished_ms")),
    "state": "queued",
    "attempt": 0,
    "outputs": [],
    "can": {"cancel": False, "retry": False},
}
_BLANK_WORKER: Final[Record] = {
    "name": "",
    "state": "joined",
    "paused": False,
    "simulated": False,
    "gpu": {"name": ""},
    "stats": None,
    "held": [],
}


def index(snapshot: Record, templates: Sequence[Record], viewer: Viewer) -> str:
    """The studio: form, workers, queue and gallery as the snapshot has them; the scripts go on from the same data."""
    jobs = {job["id"]: job for job in snapshot["jobs"]}
    offered = sorted(templates, key=lambda one: bool(one["name"] != HOME_TEMPLATE))
    paused = WORDS["fleet.paused"] if snapshot["stats"]["paused"] else ""
    return _render(
        "index",
        viewer=viewer,
        templates=offered,
        workers=[describe.worker_card(one, jobs) for one in sorted(snapshot["workers"], key=lambda one: one["name"])],
        simulated=any(worker["simulated"] for worker in snapshot["workers"]),
        queue=_cards("queue", snapshot["jobs"]),
        gallery=_cards("gallery", snapshot["jobs"]),
        counts=describe.counts(snapshot["stats"], snapshot["jobs"]),
        link="connecting" if snapshot["connected"] else "unreachable",
        notice=paused if snapshot["connected"] else WORDS["link.unreachable.help"],
        blank_job=describe.job_card(_BLANK_JOB),
        blank_worker=describe.worker_card(_BLANK_WORKER, {}),
        data=embed({"snapshot": snapshot, "templates": list(templates), "words": WORDS}),
    )


def login(problem: str) -> str:
    """The page that asks for an access token. problem: what was wrong with the last one, "" at first."""
    return _render("login", problem=problem)


def problem(status: int, title: str, text: str) -> str:
    """A whole page for an error that a person meets by walking to an address."""
    return _render("problem", status=status, title=title, text=text)


def embed(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a <script type="application/json">: nothing in it can end the block or open a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _render(view: str, **values: Any) -> str:
    tools = {"say": say, "attribute": bottle.html_escape, "bounds": _bounds, "limits": _limits}
    tools |= {"shape": _shape, "groups": _groups}
    return str(_view(view).render(tools | values))


#: Parsed once: the files belong to the program, and do not change under it.
_PARSED: dict[str, Any] = {}


def _view(name: str) -> Any:
    if name not in _PARSED:
        _PARSED[name] = bottle.SimpleTemplate(name=f"{name}.html", lookup=[str(_VIEWS)])
    return _PARSED[name]


def _cards(name: str, jobs: Sequence[Record]) -> list[dict[str, Any]]:
    """The first cards of one of the page's two lists, in its order."""
    placed = [(rank, job) for job in jobs for where, rank in [describe.place(job)] if where == name]
    placed.sort(key=lambda pair: pair[0])
    return [describe.job_card(job) for _, job in placed[:PAINTED]]


def _groups(template: Record) -> list[str]:
    """The groups of its fields, each once."""
    return list(dict.fromkeys(field["group"] for field in template["fields"] if field["group"]))


def _bounds(field: Record) -> str:
    """The range of a number as people read it, "" for everything else."""
    if field["type"] not in ("integer", "number") or field["min"] is None or field["max"] is None:
        return ""
    return f"{field['min']:g}–{field['max']:g}"


def _limits(field: Record) -> str:
    """The attributes that bound a number input; any step where the field names none."""
    step = field["step"] if field["step"] is not None else 1 if field["type"] == "integer" else "any"
    given = {"min": field["min"], "max": field["max"], "step": step}
    return " ".join(
        f'{name}="{bottle.html_escape(format(value, "g") if value != "any" else value)}"'
        for name, value in given.items()
        if value is not None
    )


def _shape(size: str) -> str:
    """A small drawing of a size's proportions, or nothing for a choice that is no size."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if found is None or "0" in found.groups():
        return ""
    width, height = (int(part) for part in found.groups())
    scale = 16 / max(width, height)
    w, h = round(width * scale, 1), round(height * scale, 1)
    return (
        f'<svg viewBox="0 0 18 18" aria-hidden="true"><rect x="{9 - w / 2:.1f}" y="{9 - h / 2:.1f}" '
        f'width="{w}" height="{h}" rx="1.5" fill="none" stroke="currentColor" stroke-width="1.4"/></svg>'
    )
