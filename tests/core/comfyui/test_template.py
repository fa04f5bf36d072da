from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import workflow
from comfyui.forms import template_of
from comfyui.library import BUILT_IN, load_templates
from comfyui.template import Template
from comfyui.workflow import WorkflowError
from tests.core.comfyui.graphs import ROOT, graph
from tests.core.comfyui.strategies import json_values

TEMPLATES, COMPLAINTS = load_templates(BUILT_IN)
TEXT_TO_IMAGE = TEMPLATES["text-to-image"]
#: What must be given to each template.
NEEDED: dict[str, dict[str, object]] = {
    "comic": {},
    "image-to-image": {"picture": "a.png", "prompt": "p"},
    "story": {},
    "text-to-image": {"prompt": "p"},
    "upscale": {"picture": "a.png"},
    "variations": {"picture": "a.png"},
}


def bad_field(template: Template, **params: object) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        template.fill(params, seed=1)
    assert caught.value.code == "bad_field"
    return caught.value


def of_one_field(type: str, input: str = "level", **field: Any) -> Template:
    """A template whose one field, n, sets an input of a node that saves."""
    nodes = graph(
        a=("LoadImage", {"image": "a.png"}), b=("Save", {"images": ["a", 0], "level": 1, "filename_prefix": "x"})
    )
    node = "a" if input == "image" else "b"
    entry = {"key": "n", "label": "N", "type": type, "sets": [{"node": node, "input": input}], **field}
    form = {"title": "T", "description": "", "result": "b", "fields": [entry]}
    return template_of("one", workflow.of(nodes), form)


def test_the_templates_that_come_with_the_program_are_sound() -> None:
    assert COMPLAINTS == ()
    assert list(TEMPLATES) == sorted(NEEDED)


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
    assert (error.details["field"], error.kind) == (field, kind)
    assert f"field {field} (" in str(error)


@pytest.mark.parametrize(
    ("field", "value", "problem", "values"),
    [
        ("steps", 0, "min", {"min": 1}),
        ("steps", 1.5, "integer", {}),
        ("cfg", "a", "number", {}),
        ("size", "1001x1000", "step", {"step": 8}),
        ("seed", -1, "seed", {"max": str(2**64 - 1)}),
        ("prompt", "", "required", {}),
        ("prompt", None, "required", {}),
    ],
)
def test_what_is_wrong_is_also_a_code_with_its_values(
    field: str, value: object, problem: str, values: dict[str, object]
) -> None:
    error = bad_field(TEXT_TO_IMAGE, **{"prompt": "p", field: value})
    assert error.details == {"field": field, "problem": problem, "values": values}


def test_an_unknown_field_is_told_which_there_are() -> None:
    with pytest.raises(WorkflowError, match="negative_prompt") as caught:
        TEXT_TO_IMAGE.fill({"promt": "x"}, seed=1)
    assert caught.value.code == "unknown_field"


def test_a_picture_stays_in_the_input_folder() -> None:
    template = of_one_field("image", "image")
    assert template.fill({"n": "sub/b.png"}, seed=1).nodes["a"].inputs == {"image": "sub/b.png"}
    for name in ("../b.png", "b.png [output]", "", None):
        assert bad_field(template, n=name).details["field"] == "n"


def test_whole_numbers_may_have_to_be_multiples() -> None:
    template = of_one_field("integer", step=8)
    assert template.fill({"n": 16}, seed=1).nodes["b"].inputs["level"] == 16
    assert "multiple of 8" in str(bad_field(template, n=12))


def test_a_switch_is_on_or_off() -> None:
    template = of_one_field("switch", default=False)
    assert template.fill({}, seed=1).nodes["b"].inputs["level"] is False
    assert template.fill({"n": True}, seed=1).nodes["b"].inputs["level"] is True
    assert "true or false" in str(bad_field(template, n=1))


def test_a_node_may_take_smaller_seeds_than_comfyui() -> None:
    template = of_one_field("seed", max=2**31 - 1)
    assert template.fill({"n": 2**31 - 1}, seed=1).nodes["b"].inputs["level"] == 2**31 - 1
    assert "to 2147483647" in str(bad_field(template, n=2**31))
    assert template.fill({}, seed=2**53 + 5).nodes["b"].inputs["level"] == 5
    assert template.fill({}, seed=2**31 - 1).nodes["b"].inputs["level"] == 2**31 - 1


def test_what_only_the_workflow_refuses_is_its_fields_fault() -> None:
    error = bad_field(of_one_field("text", "filename_prefix"), n="../../x")
    assert error.details == {"field": "n"} and 'holds ".."' in str(error)
    long = of_one_field("text", max=10**9)
    assert bad_field(long, n="x" * 100_001).kind == "too_large"


def test_a_sample_keeps_what_nobody_has_said() -> None:
    sample = TEXT_TO_IMAGE.sample({"checkpoint": "b.safetensors"})
    assert sample.nodes["6"] == TEXT_TO_IMAGE.workflow.nodes["6"]
    assert sample.nodes["4"].inputs == {"ckpt_name": "b.safetensors"}


@pytest.mark.parametrize("name", NEEDED)
def test_what_must_be_given_is_enough(name: str) -> None:
    filled = TEMPLATES[name].fill(NEEDED[name], seed=2**53 - 1)
    assert TEMPLATES[name].result in filled.nodes
    assert workflow.parse(workflow.dump(filled)) == filled


@given(st.data())
def test_any_values_give_a_workflow_or_one_error_that_names_the_field(data: st.DataObject) -> None:
    template = TEMPLATES[data.draw(st.sampled_from(list(TEMPLATES)))]
    given = st.fixed_dictionaries({}, optional={field.key: near_misses(field.default) for field in template.fields})
    params = {**NEEDED[template.name], **data.draw(given)}
    try:
        filled = template.fill(params, seed=data.draw(st.integers(0, 2**64 - 1)))
    except WorkflowError as e:
        # Panels that stay as they are may speak of characters that do not.
        assert e.details["field"] in {*params, "panels"} and f"field {e.details['field']} (" in str(e)
        return
    assert workflow.parse(workflow.dump(filled)) == filled


def near_misses(default: object) -> st.SearchStrategy[object]:
    """Anything and the value itself; for a list also its own rows with anything in places."""
    if not isinstance(default, list):
        return st.just(default) | json_values
    rows = st.sampled_from(default) | json_values
    for row in default:
        rows |= st.fixed_dictionaries({key: st.just(row[key]) | json_values for key in row})
    texts = st.lists(st.sampled_from(["[Mira]", "[Tom]", "[NC]", "[", "#", "a pier", "\u2028"]), max_size=8)
    return st.lists(rows, max_size=20) | texts.map("".join) | json_values
