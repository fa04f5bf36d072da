"""The templates in folders on disk: read once at start; a broken one is told of and the others are there all the same.

A template is a folder with workflow.json and form.json. Owns the reading of these files and nothing else.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfyui import strict
from comfyui.forms import template_of
from comfyui.lines import line_of, line_of_second_key
from comfyui.template import Template, TemplateError
from comfyui.workflow import Workflow, WorkflowError, parse

#: The templates that come with the program.
BUILT_IN: Final = Path(__file__).with_name("templates")
FILE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a template could not be loaded, for whoever can mend its file."""

    name: str  # of the template's folder
    file: Path
    line: int | None  # None when it is not about one place
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line is not None else ''}: {self.reason}"


def load_templates(*folders: Path) -> tuple[dict[str, Template], tuple[Complaint, ...]]:
    """Every sound template by its name, in the order of their names, and a complaint about each of the others.

    A template takes the place of one with the same name in an earlier folder; a broken one does not.
    """
    templates: dict[str, Template] = {}
    complaints: list[Complaint] = []
    for folder in folders:
        try:
            found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
        except OSError as e:
            complaints.append(Complaint("", folder, None, f"the folder cannot be read: {e.strerror}"))
            continue
        for path in found:
            loaded = _load(path)
            if isinstance(loaded, Template):
                templates[loaded.name] = loaded
            else:
                complaints.append(loaded)
    return dict(sorted(templates.items())), tuple(complaints)


def _load(folder: Path) -> Template | Complaint:
    file = folder / "workflow.json"
    try:
        workflow = _workflow(_text(file))
        file = folder / "form.json"
        return _template(folder.name, workflow, _text(file))
    except _Fault as e:
        return Complaint(folder.name, file, e.line, str(e))


class _Fault(Exception):
    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_BYTES:
            raise _Fault(f"the file has {file.stat().st_size} bytes; the limit is {FILE_BYTES}")
        return file.read_bytes().decode()
    except OSError as e:
        raise _Fault(f"cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise _Fault("is not UTF-8", e.object.count(b"\n", 0, e.start) + 1) from e


def _workflow(text: str) -> Workflow:
    _json(text)
    try:
        return parse(text.encode())
    except WorkflowError as e:
        path = [str(e.details[key]) for key in ("node_id", "input") if key in e.details]
        raise _Fault(str(e), line_of(text, path if len(path) < 2 else [path[0], "inputs", path[1]])) from e


def _template(name: str, workflow: Workflow, text: str) -> Template:
    form = _json(text)
    try:
        return template_of(name, workflow, form)
    except TemplateError as e:
        raise _Fault(str(e), line_of(text, e.path)) from e


def _json(text: str) -> object:
    try:
        return strict.load(text.encode())
    except strict.StrictError as e:
        cause = e.__cause__
        line = cause.lineno if isinstance(cause, json.JSONDecodeError) else line_of_second_key(text)
        raise _Fault(f"not valid JSON: {e}", line) from e
