"""Whether a fleet can run a template, asked before anything is filled in, and what its model fields can be set to.

`object_info` is the fleet's (catalogue.union); while no worker has announced itself there is nothing to ask. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfyui.catalogue import node_class
from comfyui.check import check
from comfyui.fields import Field
from comfyui.needs import needs
from comfyui.template import Template
from comfyui.workflow import WorkflowError

_NAMED = 5  # of a longer list


@dataclass(frozen=True, slots=True)
class Lack:
    """Why no worker can run a template: in English, and as a code with values for whoever says it otherwise."""

    text: str
    code: str  # no_node, no_model, or that of a WorkflowError
    values: Mapping[str, object]


def lack(template: Template, object_info: Mapping[str, object]) -> Lack | None:
    """What keeps every worker from running it, whatever is filled in; None when one could.

    A model that is missing while the fleet has others in its place is no reason: see `stand_ins`.
    """
    classes = sorted({node.class_type for node in template.workflow.nodes.values()})
    missing = [name for name in classes if node_class(object_info, name) is None]
    if missing:
        text = f"no worker has {'node' if len(missing) == 1 else 'the nodes'} {_in_words(missing)}"
        return Lack(text, "no_node", {"names": ", ".join(missing[:_NAMED]) + (" …" if len(missing) > _NAMED else "")})
    for field in template.fields:
        if _offered(template, field, object_info) == ():
            name = _wanted(template, field)
            text = f"no worker has {name}, and the fleet has none in its place ({field.label})"
            return Lack(text, "no_model", {"name": name, "label": field.label})
    try:
        problems = check(template.sample(stand_ins(template, object_info)), object_info)
    except WorkflowError as e:
        problems = (e,)
    return Lack(str(problems[0]), problems[0].code, problems[0].details) if problems else None


def wants(template: Template, object_info: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a ComfyUI needs beside its own nodes to run it as it stands: node classes that do not come with ComfyUI, as
    far as the fleet knows them, and model files."""
    needed = needs(template.workflow, object_info)
    classes = {name: node_class(object_info, name) for name in needed.nodes}
    return tuple(name for name, found in classes.items() if found is None or not found.is_core), needed.models


def stand_ins(template: Template, object_info: Mapping[str, object]) -> dict[str, str]:
    """For each model field whose default no worker has: a file that some worker has. By the field's key."""
    found = {}
    for field in template.fields:
        choices = model_choices(template, field, object_info)
        if choices and _wanted(template, field) not in choices:
            found[field.key] = choices[0]
    return found


def missing_models(template: Template, object_info: Mapping[str, object]) -> dict[str, str]:
    """For each field with a stand-in a sentence for people: what is missing, and what the fleet has. By its key."""
    fields = {field.key: field for field in template.fields}
    return {
        key: f"no worker has {_wanted(template, fields[key])}; the fleet has "
        + _in_words(model_choices(template, fields[key], object_info))
        for key in stand_ins(template, object_info)
    }


def model_choices(template: Template, field: Field, object_info: Mapping[str, object]) -> Sequence[str]:
    """The files that the workers offer for a field of type model; none for other fields."""
    offered = _offered(template, field, object_info)
    return offered if offered is not None else ()


def _offered(template: Template, field: Field, object_info: Mapping[str, object]) -> tuple[str, ...] | None:
    """None where no list tells."""
    if field.type != "model":
        return None
    target = field.sets[0]
    given = node_class(object_info, template.workflow.nodes[target.node].class_type)
    declared = given.inputs.get(target.input) if given is not None else None
    if declared is None or declared.choices is None:
        return None
    return tuple(choice for choice in declared.choices if isinstance(choice, str))


def _wanted(template: Template, field: Field) -> str:
    inputs = template.workflow.nodes[field.sets[0].node].inputs
    return str(field.default if field.default is not None else inputs[field.sets[0].input])


def _in_words(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and 7 more"."""
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
