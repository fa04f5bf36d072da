"""The templates: what there is and what of it can run; and for an admin new ones out of any workflow."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Final

from bottle import HTTPResponse

from comfyui import offering
from comfyui.fields import Field
from comfyui.offering import Candidate
from comfyui.runnable import Lack, lack, model_choices, stand_ins, wants
from comfyui.template import Template, TemplateError
from comfyui.workflow import Workflow
from web.answers import Refusal, answered
from web.api.site import Call
from web.api.wishes import parsed
from web.library import Taken
from web.link import BrokerSilent
from web.views_json import Json
from web.words import ENGLISH, Words

log = logging.getLogger(__name__)

#: What a person may change of a field that is offered.
WORDS: Final = ("label", "help", "group")


def listing(call: Call) -> HTTPResponse:
    """GET /api/v1/templates"""
    return answered({"templates": views(call)})


def get(call: Call, name: str) -> HTTPResponse:
    """GET /api/v1/templates/{name}"""
    found = call.site.templates.get(name)
    if found is None:
        have = ", ".join(call.site.templates)
        raise Refusal(404, "not_found", f"there is no template {name[:100]!r}; there are {have}")
    return answered(view(call, found, call.site.abilities.object_info()))


def views(call: Call) -> list[Json]:
    """Every template as the page shows it; with what is known when the broker is silent."""
    object_info = _known(call)
    return [view(call, found, object_info) for found in call.site.templates.values()]


def view(call: Call, found: Template, object_info: Mapping[str, object] | None) -> Json:
    """A template as the fleet could run it now; before any worker was seen it counts as runnable, since a job
    waits."""
    words = call.words
    models = stand_ins(found, object_info) if object_info is not None else {}
    lacks = lack(found, object_info) if object_info is not None else None
    nodes, files = wants(found, object_info) if object_info is not None else ((), ())
    return {
        "name": found.name,
        "title": words.term(found.title),
        "description": words.term(found.description),
        "own": call.site.templates.is_own(found.name),
        "fields": [_field(found, field, models, object_info, words) for field in found.fields],
        "needs": {"nodes": list(nodes), "models": list(files)},
        "runnable": lacks is None,
        **_lacking(lacks, words),
    }


def _lacking(found: Lack | None, words: Words) -> Json:
    """Why no worker could run it, in the asker's language and as a code; both empty where one could."""
    if found is None:
        return {"why_not": "", "why_not_code": ""}
    values = {**found.values, **({"label": words.term(str(found.values["label"]))} if "label" in found.values else {})}
    return {"why_not": words.explain(found.code, found.text, values), "why_not_code": found.code}


def _field(
    found: Template,
    field: Field,
    models: Mapping[str, str],
    object_info: Mapping[str, object] | None,
    words: Words,
) -> Json:
    offered = model_choices(found, field, object_info) if object_info is not None else ()
    choices = list(offered if offered else field.choices)
    return {
        "key": field.key,
        "label": words.term(field.label),
        "type": field.type,
        "default": models.get(field.key, field.default),
        "min": field.min,
        "max": field.max,
        "step": field.step,
        "help": words.term(field.help),
        "group": words.term(field.group),
        "choices": choices if choices else None,
    }


# ---- new ones


def draft(call: Call) -> HTTPResponse:
    """POST /api/v1/templates/draft: in the words that are stored, not in those of the asker's language."""
    workflow, object_info = parsed(_body(call, {"workflow"})["workflow"]), _known(call)
    found = offering.candidates(workflow, object_info if object_info is not None else {})
    ends = offering.results(workflow)
    trial = Template("draft", "", "", tuple(one.field for one in found), ends[0], workflow)
    models = stand_ins(trial, object_info) if object_info is not None else {}
    return answered(
        {
            "fields": [
                {**_field(trial, one.field, models, object_info, ENGLISH), **_place(one, workflow)} for one in found
            ],
            "results": [_node(node_id, workflow) for node_id in ends],
            **_lacking(lack(trial, object_info) if object_info is not None else None, call.words),
        }
    )


def _place(one: Candidate, workflow: Workflow) -> Json:
    """Where an offered field stands in the workflow, and what stands there now."""
    (target,) = one.field.sets
    value = workflow.nodes[target.node].inputs[target.input]
    return {
        "node": target.node,
        "class_type": one.class_type,
        "title": one.title,
        "input": target.input,
        "value": value,
    }


def _node(node_id: str, workflow: Workflow) -> Json:
    node = workflow.nodes[node_id]
    return {"node": node_id, "class_type": node.class_type, "title": offering.title(node)}


def save(call: Call) -> HTTPResponse:
    """POST /api/v1/templates"""
    body = _body(call, {"name", "title", "workflow", "fields"}, {"description": "", "result": ""})
    workflow, object_info = parsed(body["workflow"]), _known(call)
    offered = offering.candidates(workflow, object_info if object_info is not None else {})
    fields = _picked(body["fields"], {one.field.key: one.field for one in offered})
    texts = [_text(body, key) for key in ("name", "title", "description", "result")]
    name, title, description, result = texts
    if not title.isprintable() or not title.strip():
        message = "title is one line of characters that can be printed, and not blank"
        raise Refusal(422, "bad_template", message, details={"path": ["title"]})
    try:
        drafted = offering.template_from_workflow(name, title, workflow, fields, description=description, result=result)
        call.site.templates.add(drafted)
    except TemplateError as e:
        raise Refusal(422, "bad_template", str(e), details={"path": list(e.path)}) from e
    except Taken as e:
        raise Refusal(409, "taken", str(e), details={"path": ["name"]}) from e
    except OSError as e:
        raise _folder_fault(e) from e
    return answered(view(call, drafted.template, object_info), 201)


def _picked(entries: object, offered: Mapping[str, Field]) -> list[Field]:
    """The fields that were picked, by their keys alone or with other words. Raises Refusal."""
    if not isinstance(entries, list):
        raise Refusal(422, "bad_type", "fields is a list", details={"path": ["fields"]})
    if not entries:
        message = "fields is empty: pick at least one input, for a form that asks for nothing makes the same each time"
        raise Refusal(422, "bad_template", message, details={"path": ["fields"]})
    found = []
    for number, entry in enumerate(entries):
        given = {"key": entry} if isinstance(entry, str) else entry
        texts = isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
        if not texts or "key" not in given or given.keys() - {"key", *WORDS}:
            message = f"a field is a key, or an object of key, {', '.join(WORDS)}, all of them texts"
            raise Refusal(422, "bad_field", message, details={"path": ["fields", number]})
        if given["key"] not in offered:
            message = f"the workflow offers no field {given['key'][:100]!r}; ask /templates/draft what it offers"
            raise Refusal(422, "unknown_field", message, details={"path": ["fields", number]})
        field = offered[given["key"]]
        words = {key: given.get(key, getattr(field, key)) for key in WORDS}
        found.append(dataclasses.replace(field, label=words["label"], help=words["help"], group=words["group"]))
    return found


def delete(call: Call, name: str) -> HTTPResponse:
    """DELETE /api/v1/templates/{name}"""
    call.no_body()
    if name not in call.site.templates:
        raise Refusal(404, "not_found", f"there is no template {name[:100]!r}")
    if not call.site.templates.is_own(name):
        raise Refusal(409, "built_in", f"the template {name} comes with the program and stays")
    try:
        call.site.templates.remove(name)
    except OSError as e:
        raise _folder_fault(e) from e
    return answered({"done": True})


def _folder_fault(cause: OSError) -> Refusal:
    """Nothing was changed, and somebody has to look at the folder."""
    log.error("the folder of templates cannot be written to", extra={"fields": {"why": str(cause)}})
    message = f"the folder of [web] templates cannot be written to: {cause.strerror}; nothing was changed"
    return Refusal(507, "folder_unwritable", message)


def _known(call: Call) -> Mapping[str, object] | None:
    """What the fleet can do, None while nobody can tell."""
    try:
        return call.site.abilities.object_info()
    except BrokerSilent:
        return None


def _body(call: Call, needed: set[str], others: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The body, with these keys and no more. Raises Refusal."""
    body, optional = call.json(), others if others is not None else {}
    if missing := sorted(needed - body.keys()):
        raise Refusal(422, "missing_key", f"{missing[0]} is missing", details={"path": [missing[0]]})
    if unknown := sorted(body.keys() - needed - optional.keys()):
        raise Refusal(422, "unknown_key", f"unknown key {unknown[0][:50]!r}; there are {', '.join(sorted(needed))}")
    return {**optional, **body}


def _text(body: Mapping[str, Any], key: str) -> str:
    if not isinstance(body[key], str):
        raise Refusal(422, "bad_type", f"{key} is text", details={"path": [key]})
    return str(body[key])
