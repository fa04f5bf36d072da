"""A StoryDiffusion story: characters and panels as people enter them, and the lines of text its nodes read.

The nodes (ComfyUI_StoryDiffusion at e4e0acd) drop rows that break their rules without a word, or fail without naming
one; so the rules are kept here. All panels of the first character are drawn first, whatever order the rows have, and
mixed orders lose some: the rows are sent character by character, then the one without anybody, then those of two, and
the pictures are put back into the panels' own order by nodes of ComfyUI itself. Pure.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from comfyui import strict
from comfyui.fields import Refused
from comfyui.workflow import Workflow, of

NAME_CHARS: Final = 40
TEXT_CHARS: Final = 1_000  # of a description or a panel; the model reads about the first 60 words of both together
CAPTION_CHARS: Final = 200
SCRIPT_CHARS: Final = 50_000  # of a list given as one text
#: With a third character the encoder fails: it sorts the rows of two.
ROLES: Final = 2
#: How the nodes write that nobody is in a panel.
NOBODY: Final = "NC"
#: The modes that draw panels of two characters; the others leave them out.
TWO_ROLE_MODES: Final = frozenset({"msdiffusion", "story_and_maker"})

#: What of the panels an input can be given: a text of all rows, a text of all captions, or the order of the pictures.
PARTS: Final = ("scenes", "captions", "pictures")

_NAMED = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Panel:
    roles: tuple[str, ...]  # put before the text, unless it names them itself
    text: str  # may name characters: "hands [Ben] the map"
    caption: str = ""

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody in the panel, each once."""
        return tuple(dict.fromkeys((*self.roles, *_NAMED.findall(self.text))))

    @property
    def row(self) -> str:
        """The panel as a line of scene_text."""
        before = [name for name in dict.fromkeys(self.roles) if f"[{name}]" not in self.text]
        if not self.people:
            before = [NOBODY]
        return " ".join((" and ".join(f"[{name}]" for name in before), self.text)).lstrip()


def read_roles(value: object) -> tuple[Role, ...]:
    """Characters from [{"name", "description"}], or from lines "[Name] description". Raises: Refused."""
    return _read(value, "[Ann] a woman with short red hair", _role)


def read_panels(value: object) -> tuple[Panel, ...]:
    """Panels from [{"roles": [names], "text", "caption"}], or from lines "[Name] text #caption". Raises: Refused."""
    return _read(value, "[Ann] opens the letter", _panel)


def check(roles: Sequence[Role], panels: Sequence[Panel], mode: str | None) -> None:
    """Refuses panels that the nodes would not draw, or draw as somebody else. Raises: Refused."""
    names = [role.name for role in roles]
    nobody = 0
    for number, panel in enumerate(panels, start=1):
        fault = _panel_fault(panel, names, mode)
        nobody += not panel.people
        if fault is None and nobody > 1 and not panel.people:
            reason = "is a second one without a character; StoryDiffusion draws only one of them"
            fault = Refused(reason, problem="story.nobody")
        if fault is not None:
            raise fault.at(number)
    for name in names:
        if not any(panel.people == (name,) for panel in panels):
            reason = f"no panel shows {name} alone; StoryDiffusion learns each character from one that does"
            raise Refused(reason, problem="story.alone", name=name)


def _panel_fault(panel: Panel, names: Sequence[str], mode: str | None) -> Refused | None:
    unknown = next((name for name in panel.people if name not in names), None)
    if unknown is not None:
        name, known = unknown[:NAME_CHARS], ", ".join(names)
        reason = f"names {name!r}, who is not among the characters: {known}"
        return Refused(reason, problem="story.stranger", name=name, known=known)
    named = _NAMED.findall(panel.text)
    if len(set(named)) < len(named):
        name = max(named, key=named.count)
        return Refused(f"names {name} twice; say she, he or it the second time", problem="story.twice", name=name)
    if len(panel.people) == ROLES and mode not in TWO_ROLE_MODES:
        modes = " and ".join(sorted(TWO_ROLE_MODES))
        reason = f"has two characters, which only the modes {modes} draw; this one is {mode}"
        return Refused(reason, problem="story.two", modes=", ".join(sorted(TWO_ROLE_MODES)), mode=str(mode))
    return None


def role_text(roles: Iterable[Role]) -> str:
    return "\n".join(f"[{role.name}] {role.description}" for role in roles)


def scene_text(roles: Sequence[Role], panels: Sequence[Panel]) -> str:
    """The rows in the order in which they are drawn; captions are not among them: the model would read them."""
    return "\n".join(panels[number].row for number in _drawn(roles, panels))


def caption_text(panels: Iterable[Panel]) -> str:
    """A line for each panel, in the panels' own order; an empty one where there is no caption."""
    return "\n".join(panel.caption for panel in panels)


def places(roles: Sequence[Role], panels: Sequence[Panel]) -> tuple[int, ...]:
    """For each panel the place of its picture among those that come out of the sampler."""
    drawn = _drawn(roles, panels)
    return tuple(drawn.index(number) for number in range(len(panels)))


def _drawn(roles: Sequence[Role], panels: Sequence[Panel]) -> list[int]:
    turn: dict[tuple[str, ...], int] = {(role.name,): number for number, role in enumerate(roles)} | {(): len(roles)}
    return sorted(range(len(panels)), key=lambda number: turn.get(panels[number].people, len(roles) + 1))


def mode_of(workflow: Workflow, encoder: str) -> str | None:
    """The infer_mode that the node StoryDiffusion_CLIPTextEncode with this id works in; None when there is none."""
    links = dict(workflow.nodes[encoder].links())
    mode = workflow.nodes[links["switch"].node_id].inputs.get("infer_mode") if "switch" in links else None
    return mode if isinstance(mode, str) else None


def rearranged(workflow: Workflow, inputs: Iterable[tuple[str, str]], order: Sequence[int]) -> Workflow:
    """The workflow with these links, by (node id, input), leading to their pictures in another order.

    order: for each place the picture of the batch that belongs there. Already in order, the workflow stays as it is.
    """
    if list(order) == sorted(order):
        return workflow
    graph = workflow.graph()
    put: dict[tuple[str, int], list[str | int]] = {}  # link to the batch -> link to it in the other order
    for node_id, name in inputs:
        source = graph[node_id]["inputs"][name]
        if tuple(source) not in put:
            put[tuple(source)] = _put(graph, source, order)
        graph[node_id]["inputs"] = {**graph[node_id]["inputs"], name: put[tuple(source)]}
    return of(graph)


def _put(graph: dict[str, dict[str, Any]], source: list[str | int], order: Sequence[int]) -> list[str | int]:
    """Adds nodes that take the pictures of `source` one by one and join them; a link to the last."""
    stem = f"{source[0]}-panel"
    while any(node_id.startswith(stem) for node_id in graph):
        stem += "s"
    joined: list[str | int] = []
    for place, picture in enumerate(order, start=1):
        picked, meta = f"{stem}-{place}", {"title": f"Panel {place}"}
        inputs = {"image": source, "batch_index": picture, "length": 1}
        graph[picked] = {"class_type": "ImageFromBatch", "inputs": inputs, "_meta": meta}
        if joined:
            inputs = {"image1": joined, "image2": [picked, 0]}
            picked = f"{stem}-1-to-{place}"
            graph[picked] = {"class_type": "ImageBatch", "inputs": inputs, "_meta": meta}
        joined = [picked, 0]
    return joined


_Row = TypeVar("_Row")


def _read(value: object, example: str, read: Callable[[object], _Row]) -> tuple[_Row, ...]:
    if isinstance(value, str):
        if len(value) > SCRIPT_CHARS:
            raise Refused(f"has {len(value)} characters; the limit is {SCRIPT_CHARS}", "too_large")
        value = [line for line in value.splitlines() if line.strip()]
    if not isinstance(value, list):
        raise Refused(f"must be a list, or text with one on each line such as: {example}")
    rows = []
    for number, row in enumerate(value, start=1):
        try:
            rows.append(read(row))
        except Refused as e:
            raise e.at(number) from e
    return tuple(rows)


def _role(row: object) -> Role:
    if isinstance(row, str):
        found = re.fullmatch(r"\s*\[([^\[\]]*)\](.*)", row, re.DOTALL)
        if found is None:
            raise Refused("does not begin with a name in brackets, such as [Ann]")
        row = dict(zip(("name", "description"), found.groups(), strict=True))
    given = _entries(row, ("name", "description"))
    name = _line(given.get("name"), "the name", NAME_CHARS, without="[]#")
    if name.upper() == NOBODY:
        reason = f"the name {name} is taken: [{NOBODY}] marks a panel without a character"
        raise Refused(reason, problem="story.taken", name=name)
    return Role(name, _line(given.get("description"), "the description", TEXT_CHARS, without="[]#"))


def _panel(row: object) -> Panel:
    if isinstance(row, str):
        row = _panel_of_line(row)
    given = _entries(row, ("roles", "text", "caption"))
    names = given.get("roles", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused("its roles must be a list of names")
    text = _line(given.get("text"), "the text", TEXT_CHARS, without="#")
    rest = _NAMED.sub("", text)
    if "[" in rest or "]" in rest:
        raise Refused("has a bracket without its partner; a character is written [Name]", problem="story.bracket")
    if not rest.strip():
        raise Refused("says nothing: write what happens", problem="story.empty")
    caption = given.get("caption", "")
    people = tuple(" ".join(name.split()) for name in names)
    return Panel(people, text, _line(caption, "the caption", CAPTION_CHARS, without="[]#") if caption else "")


def _panel_of_line(line: str) -> dict[str, object]:
    """Who is in it stays in the text; [NC] says that nobody is."""
    text, _, caption = line.rpartition("#") if "#" in line else (line, "", "")
    names = _NAMED.findall(text)
    if not names:
        raise Refused(f"names nobody: begin it with a character such as [Ann], or with [{NOBODY}] for nobody")
    if NOBODY in names:
        if len(names) > 1:
            raise Refused(f"has [{NOBODY}], which says that nobody is there, and a character")
        text = text.replace(f"[{NOBODY}]", "")
    return {"text": text, "caption": caption}


def _entries(row: object, keys: tuple[str, ...]) -> Mapping[str, object]:
    if not isinstance(row, dict) or not row.keys() <= set(keys):
        raise Refused(f"must have {', '.join(keys)} and nothing else")
    return row


def _line(value: object, what: str, most: int, *, without: str) -> str:
    """One line of text: line breaks become spaces. Raises: Refused, naming `what`."""
    if not isinstance(value, str):
        raise Refused(f"{what} must be text")
    try:
        strict.check(value)
    except strict.StrictError as e:
        raise Refused(f"{what} {e}", "bad_request") from e
    line = " ".join(value.split())
    if not line:
        raise Refused(f"{what} is empty", problem="required")
    if len(line) > most:
        reason = f"{what} has {len(line)} characters; the limit is {most}"
        raise Refused(reason, "too_large", problem="long", have=len(line), max=most)
    wrong = next((character for character in line if character in without), None)
    if wrong is not None:
        reason = f"{what} holds {wrong!r}, which StoryDiffusion takes for a mark of its own"
        raise Refused(reason, problem="signs", sign=wrong)
    return line
