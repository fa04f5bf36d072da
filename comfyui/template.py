"""A template: a workflow in API format, and the form that fills it in.

`Template.fill` sets a person's values on the parsed graph and names the field and the reason when one will not do;
nothing is ever spliced into text. Reading templates out of their files is forms.py's and library.py's duty. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfyui import story
from comfyui.fields import Field, Refused, Target
from comfyui.values import read, seed_max
from comfyui.workflow import Workflow, WorkflowError, set_inputs


class TemplateError(Exception):
    """A template's form or name is at fault. `path` leads to the place in the form's JSON, as far as it is known."""

    def __init__(self, reason: str, path: tuple[str | int, ...] = ()):
        super().__init__(reason)
        self.path = path


@dataclass(frozen=True, slots=True)
class Template:
    name: str  # of its folder
    title: str
    description: str
    fields: tuple[Field, ...]  # with panels there is exactly one field of roles
    result: str  # id of the node whose output is the result
    workflow: Workflow

    def fill(self, params: Mapping[str, object], *, seed: int) -> Workflow:
        """The workflow with these values, completed. Raises: WorkflowError naming the field, and the row of a list, for
        an unknown key or a value that will not do."""
        complete, values = self.complete(params, seed=seed), {}
        for field in self.fields:
            with _blaming(field):
                values[field.key] = read(field, complete[field.key])
        return self._set(values)

    def complete(self, params: Mapping[str, object], *, seed: int) -> dict[str, object]:
        """A value for every field: what is left out takes its default, a seed takes one made of `seed`.

        Raises: WorkflowError for an unknown key. The values are not yet checked.
        """
        keys = [field.key for field in self.fields]
        unknown = next((key for key in params if key not in keys), None)
        if unknown is not None:
            message = f"the template {self.name} has no field {unknown[:100]!r}; it has {', '.join(sorted(keys))}"
            raise WorkflowError("unknown_field", message, {"field": unknown[:100]})
        values: dict[str, object] = {}
        for field in self.fields:
            given = params.get(field.key)
            default = seed % (seed_max(field) + 1) if field.type == "seed" else field.default
            values[field.key] = given if given is not None else default
        return values

    def sample(self, params: Mapping[str, object]) -> Workflow:
        """The workflow with these values and the form's defaults; what has neither stays as in workflow.json.

        For asking whether a fleet could run the template before anything is filled in. Raises: WorkflowError.
        """
        values = {}
        for field in self.fields:
            value = params.get(field.key, field.default)
            if value is not None:
                with _blaming(field):
                    values[field.key] = read(field, value)
        return self._set(values)

    def _set(self, values: Mapping[str, Any]) -> Workflow:
        given = [field for field in self.fields if field.key in values]
        inputs: dict[tuple[str, str], object] = {}
        for field in given:
            for target in field.sets:
                if not target.part:
                    inputs[target.node, target.input] = _value(values[field.key], target)
        workflow = _with(self.workflow, inputs, given)
        roles, panels = ([field for field in given if field.type == kind] for kind in ("roles", "panels"))
        if roles and panels:
            workflow = _tell(workflow, panels[0], values[roles[0].key], values[panels[0].key])
        return workflow


def _value(value: Any, target: Target) -> object:
    if target.axis:
        return value[target.axis]
    return story.role_text(value) if isinstance(value, tuple) else value


def _tell(workflow: Workflow, field: Field, roles: Sequence[story.Role], panels: Sequence[story.Panel]) -> Workflow:
    """Sets the panels, for which everything else must be set already. Raises: WorkflowError."""
    parts = {
        part: [(target.node, target.input) for target in field.sets if target.part == part] for part in story.PARTS
    }
    with _blaming(field):
        for encoder, _ in parts["scenes"]:
            story.check(roles, panels, story.mode_of(workflow, encoder))
    texts = {"scenes": story.scene_text(roles, panels), "captions": story.caption_text(panels)}
    inputs = {target: text for part, text in texts.items() for target in parts[part]}
    return story.rearranged(_with(workflow, inputs, [field]), parts["pictures"], story.places(roles, panels))


def _with(workflow: Workflow, inputs: Mapping[tuple[str, str], object], fields: Sequence[Field]) -> Workflow:
    """A copy with these inputs; what the workflow does not take is the fault of the field that sets it."""
    try:
        return set_inputs(workflow, inputs)
    except WorkflowError as e:
        place = (e.details.get("node_id"), e.details.get("input"))
        blamed = next(f for f in fields if place in [(target.node, target.input) for target in f.sets])
        raise _fault(blamed, Refused(str(e), e.kind)) from e


@contextmanager
def _blaming(field: Field) -> Iterator[None]:
    """Whatever is refused inside is this field's fault."""
    try:
        yield
    except Refused as e:
        raise _fault(field, e) from e


def _fault(field: Field, refused: Refused) -> WorkflowError:
    where, details = f"field {field.key} ({field.label})", dict[str, object](field=field.key)
    if refused.row:
        where, details = f"{where}, row {refused.row}", {**details, "row": refused.row}
    if refused.problem:
        details |= {"problem": refused.problem, "values": refused.values}
    return WorkflowError("bad_field", f"{where}: {refused}", details, kind=refused.kind)
