"""What all pages have in common: the frame around each, how a view becomes text, and what a browser may do with it.

Pure functions from records to HTML. Data enters the HTML escaped, or as JSON in a block that no parser can leave; there
is no inline script or style, so POLICY can forbid both. Never decides what is shown to whom: the records hold only what
the viewer may see.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import bottle

from web.describe import Record
from web.viewer import Viewer
from web.words import NAMES, Words

#: The Content-Security-Policy of every page. blob: is for previews, which the page makes from the bytes of its socket.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The pages of the navigation, in its order: name -> address. The name is also that of the page's view and its script.
PAGES: Final = {"studio": "/", "gallery": "/gallery", "fleet": "/fleet", "templates": "/templates"}

_VIEWS = Path(__file__).parents[1] / "views"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Around each page: who looks at it, in which language, and how the fleet stood when it was painted."""

    viewer: Viewer
    words: Words
    connected: bool
    paused: bool
    disk_full: bool
    simulated: bool

    @property
    def link(self) -> str:
        """How the line to the fleet stands before any script runs."""
        return "connecting" if self.connected else "unreachable"

    @property
    def notice(self) -> str:
        """What everybody should know, "" for nothing."""
        if not self.connected:
            return self.words.say("link.unreachable.help")
        if self.disk_full:
            return self.words.say("fleet.disk_full")
        return self.words.say("fleet.paused") if self.paused else ""


def framed(viewer: Viewer, words: Words, snapshot: Record) -> Frame:
    """The frame for a page whose viewer sees this of the fleet."""
    return Frame(
        viewer=viewer,
        words=words,
        connected=snapshot["connected"],
        paused=snapshot["stats"]["paused"],
        disk_full=snapshot["stats"]["disk_full"],
        simulated=any(worker["simulated"] for worker in snapshot["workers"]),
    )


def page(name: str, frame: Frame, *, data: Mapping[str, Any], **values: Any) -> str:
    """The page `name` of PAGES, from its view. data: what its script begins with, beside the words."""
    embedded = embed({"words": frame.words.sentences, **data})
    return render(name, frame.words, page=name, pages=PAGES, frame=frame, data=embedded, **values)


def login(problem: str, words: Words) -> str:
    """The page that asks for an access token. problem: what was wrong with the last one, "" at first."""
    return render("login", words, problem=problem, back="/login")


def problem(status: int, text: str, words: Words) -> str:
    """A whole page for an error that a person meets by walking to an address."""
    key = f"problem.{status}"
    title = words.say(key if key in words.sentences else "problem.other")
    plain = words.sentences.get(f"{key}.help", text)
    return render("problem", words, status=status, title=title, text=plain)


def embed(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a <script type="application/json">: nothing in it can end the block or open a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def render(view: str, words: Words, **values: Any) -> str:
    """The text of a view; `say` is there for its sentences, `attribute` for what stands in an unquoted place."""
    tools = {"say": words.say, "words": words, "languages": NAMES, "attribute": bottle.html_escape}
    return str(_view(view).render(tools | values))


#: Parsed once: the files belong to the program, and do not change under it.
_PARSED: dict[str, Any] = {}


def _view(name: str) -> Any:
    if name not in _PARSED:
        _PARSED[name] = bottle.SimpleTemplate(name=f"{name}.html", lookup=[str(_VIEWS)])
    return _PARSED[name]
