import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import workflow
from comfyui.template import Template, TemplateError, load_template, load_templates
from comfyui.workflow import WorkflowError
from tests.core.comfyui.graphs import ROOT
from tests.core.comfyui.strategies import json_values

TEXT_TO_IMAGE = load_templates(ROOT / "comfyui" / "templates")["text-to-image"]
FORM: dict[str, Any] = {
    "title": "T",
    "description": "",
    "result": "2",
    "fields": [
        {"key": "picture", "label": "Picture", "type": "image", "sets": [{"node": "1", "input": "image"}]},
        {"key": "name", "label": "Name", "type": "text", "default": "x", "sets": [{"node": "2", "input": "name"}]},
    ],
}


def saved(folder: Path, form: object, graph: object = None) -> Path:
    nodes = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "Save", "inputs": {"images": ["1", 0], "name": "x", "level": 1.5}},
    }
    (folder / "workflow.json").write_text(json.dumps(graph if graph is not None else nodes))
    (folder / "form.json").write_text(json.dumps(form))
    return folder


def bad_field(template: Template, **params: object) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        template.fill(params, seed=1)
    assert caught.value.code == "bad_field"
    return caught.value


def test_the_graph_of_text_to_image_is_the_one_in_api_json() -> None:
    assert TEXT_TO_IMAGE.workflow == workflow.parse((ROOT / "comfyui" / "api.json").read_bytes())


def test_a_prompt_is_enough_and_its_text_is_only_text() -> None:
    text = 'a "quoted" \\ {brace} ${text} %s\n🌊'
    filled = TEXT_TO_IMAGE.fill({"prompt": text}, seed=2**64 - 1)
    assert filled.nodes["6"].inputs["text"] == text
    assert filled.nodes["3"].inputs["seed"] == 2**64 - 1
    unchanged = {**TEXT_TO_IMAGE.workflow.nodes, "3": None, "6": None}
    assert {**filled.nodes, "3": None, "6": None} == unchanged


def test_every_field_sets_its_inputs() -> None:
    params = {
        "prompt": "p",
        "negative_prompt": "n",
        "size": "832x1216",
        "batch": 2,
        "checkpoint": "other.safetensors",
        "steps": 30,
        "cfg": 4.5,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "seed": "18446744073709551615",
    }
    assert set(params) == {field.key for field in TEXT_TO_IMAGE.fields}
    nodes = TEXT_TO_IMAGE.fill(params, seed=1).nodes
    assert nodes["5"].inputs == {"width": 832, "height": 1216, "batch_size": 2}
    assert nodes["4"].inputs == {"ckpt_name": "other.safetensors"}
    assert (nodes["6"].inputs["text"], nodes["7"].inputs["text"]) == ("p", "n")
    sampler = {key: value for key, value in nodes["3"].inputs.items() if not isinstance(value, list)}
    assert sampler == {
        "seed": 2**64 - 1,
        "steps": 30,
        "cfg": 4.5,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "denoise": 1,
    }


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("prompt", None, "unprocessable"),
        ("prompt", "  ", "unprocessable"),
        ("prompt", 7, "unprocessable"),
        ("prompt", "x" * 10_001, "too_large"),
        ("prompt", "a\0", "bad_request"),
        ("prompt", "a\ud800", "bad_request"),
        ("size", "0x64", "unprocessable"),
        ("size", "64", "unprocessable"),
        ("size", "100x65", "unprocessable"),
        ("size", "99999999x64", "unprocessable"),
        ("size", [64, 64], "unprocessable"),
        ("steps", 0, "unprocessable"),
        ("steps", 151, "unprocessable"),
        ("steps", 1.5, "unprocessable"),
        ("steps", True, "unprocessable"),
        ("steps", "20", "unprocessable"),
        ("cfg", float("nan"), "unprocessable"),
        ("cfg", 10**400, "unprocessable"),
        ("cfg", 31, "unprocessable"),
        ("sampler", "magic", "unprocessable"),
        ("sampler", [], "unprocessable"),
        ("seed", -1, "bad_request"),
        ("seed", 2**64, "bad_request"),
        ("seed", "1.5", "bad_request"),
        ("seed", "٣", "bad_request"),
        ("checkpoint", "", "unprocessable"),
    ],
)
def test_a_bad_value_names_its_field(field: str, value: object, kind: str) -> None:
    error = bad_field(TEXT_TO_IMAGE, **{"prompt": "p", field: value})
    assert (error.details, error.kind) == ({"field": field}, kind)
    assert f"field {field} (" in str(error)


def test_an_unknown_field_is_told_which_there_are() -> None:
    with pytest.raises(WorkflowError, match="negative_prompt") as caught:
        TEXT_TO_IMAGE.fill({"promt": "x"}, seed=1)
    assert caught.value.code == "unknown_field"


def test_a_picture_stays_in_the_input_folder(tmp_path: Path) -> None:
    template = load_template(saved(tmp_path, FORM))
    assert template.fill({"picture": "sub/b.png"}, seed=1).nodes["1"].inputs == {"image": "sub/b.png"}
    assert bad_field(template, picture="../b.png").details == {"field": "picture"}
    assert bad_field(template).details == {"field": "picture"}


def test_whole_numbers_may_have_to_be_multiples(tmp_path: Path) -> None:
    field = {"key": "n", "label": "N", "type": "integer", "step": 8, "sets": [{"node": "2", "input": "level"}]}
    template = load_template(saved(tmp_path, {**FORM, "fields": [field]}))
    assert template.fill({"n": 16}, seed=1).nodes["2"].inputs["level"] == 16
    assert "multiple of 8" in str(bad_field(template, n=12))


def changed(**values: object) -> dict[str, Any]:
    return {**FORM, "fields": [{**FORM["fields"][1], **values}]}


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ([], "not an object"),
        ({**FORM, "titel": 1}, "unknown titel"),
        ({"title": "T"}, "lacks description, fields, result"),
        ({**FORM, "title": 7}, "title has a value of the wrong type"),
        ({**FORM, "result": "9"}, "result node '9'"),
        ({**FORM, "fields": {}}, "not a list"),
        ({**FORM, "fields": [7]}, "not an object"),
        ({**FORM, "fields": [{"key": "a"}]}, "lacks label, sets, type"),
        ({**FORM, "fields": FORM["fields"] * 2}, "two fields have the key 'picture'"),
        (changed(type="colour"), "no type 'colour'"),
        (changed(sets=[]), "not a list of inputs"),
        (changed(sets=[{"node": "2", "input": "nmae"}]), "node 2 has no input 'nmae'"),
        (changed(sets=[{"node": "2", "input": "name", "axis": "width"}]), "axis"),
        (changed(sets=[{"node": "2", "input": "name", "x": 1}]), "unknown x"),
        (changed(sets=[{"node": 2, "input": "name"}]), "node has a value of the wrong type"),
        (changed(type="size"), "axis"),
        (changed(default=7), "its default must be text"),
        (changed(min="1"), "min has a value of the wrong type"),
        (changed(max=True), "max has a value of the wrong type"),
        (changed(type="choice", choices=["a", 1]), "a choice: 1 has a value"),
        (changed(type="choice", choices=["a"]), "its default must be one of a"),
        (changed(help="\0"), "NUL"),
    ],
)
def test_a_bad_form_names_its_file_and_the_reason(tmp_path: Path, form: object, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        load_template(saved(tmp_path, form))
    assert str(tmp_path / "form.json") in str(caught.value) and reason in str(caught.value)


def test_a_bad_or_missing_workflow_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"workflow\.json"):
        load_template(saved(tmp_path, FORM, {"nodes": [], "links": []}))
    (tmp_path / "workflow.json").unlink()
    with pytest.raises(TemplateError, match=r"workflow\.json"):
        load_template(tmp_path)


def test_a_folder_without_templates_has_none(tmp_path: Path) -> None:
    assert load_templates(tmp_path) == {}


@given(st.dictionaries(st.sampled_from([f.key for f in TEXT_TO_IMAGE.fields]), json_values))
def test_any_values_give_a_workflow_or_one_error(params: dict[str, object]) -> None:
    try:
        filled = TEXT_TO_IMAGE.fill({"prompt": "p", **params}, seed=1)
    except WorkflowError as e:
        assert e.details["field"] in params
        return
    assert workflow.parse(workflow.dump(filled)) == filled
