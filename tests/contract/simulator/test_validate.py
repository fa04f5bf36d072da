"""The verdict on prompts, without a server: what recordings do not cover."""

from typing import Any

import pytest

from comfyui.simulator.catalog import Catalog
from comfyui.simulator.validate import Verdict, validate
from comfyui.simulator.versions import Release
from tests.contract.simulator.client import MODEL, flat, painting


def judge(graph: dict[str, Any], version: str = "0.3.64", **more: Any) -> Verdict:
    release = Release(version)
    catalog = Catalog(release, lambda kind: [MODEL] if kind == "checkpoints" else [f"{kind}-{n}" for n in range(30)])
    return validate(graph, catalog.entry, lambda name: name == "there.png", release, **more)


def with_input(node: str, name: str, value: Any) -> dict[str, Any]:
    graph = painting()
    graph[node]["inputs"][name] = value
    return graph


def only_error(verdict: Verdict, node: str) -> dict[str, Any]:
    assert list(verdict.node_errors) == [node]
    (error,) = verdict.node_errors[node]["errors"]
    return dict(error)


def test_a_good_prompt_is_accepted() -> None:
    verdict = judge(painting())
    assert verdict.error is None
    assert verdict.outputs == ["9"]
    assert verdict.node_errors == {}


@pytest.mark.parametrize("graph", [{}, [], ""])
def test_nothing_has_no_outputs(graph: Any) -> None:
    verdict = judge(graph)
    assert verdict.error is not None
    assert verdict.error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize(
    ("name", "value", "kind", "details"),
    [
        ("seed", -1, "value_smaller_than_min", "seed"),
        ("seed", 2**64, "value_bigger_than_max", "seed"),
        ("steps", "many", "invalid_input_type", "steps, many, invalid literal for int() with base 10: 'many'"),
        ("cfg", "hot", "invalid_input_type", "cfg, hot, could not convert string to float: 'hot'"),
        ("model", ["5", 0], "return_type_mismatch", "model, received_type(LATENT) mismatch input_type(MODEL)"),
        ("model", ["4"], "bad_linked_input", "model"),
        ("sampler_name", "magic", "value_not_in_list", "sampler_name: 'magic' not in (list of length 42)"),
    ],
)  # fmt: skip
def test_an_error_names_its_input(name: str, value: Any, kind: str, details: str) -> None:
    error = only_error(judge(with_input("3", name, value)), "3")
    assert error["type"] == kind
    assert error["details"] == details
    assert error["extra_info"]["input_name"] == name


def test_a_long_list_of_choices_is_not_repeated() -> None:
    error = only_error(judge(with_input("3", "sampler_name", "magic")), "3")
    assert error["extra_info"]["input_config"] is None


def test_a_missing_model_names_the_short_list() -> None:
    error = only_error(judge(with_input("4", "ckpt_name", "absent.safetensors")), "4")
    assert error["details"] == f"ckpt_name: 'absent.safetensors' not in ['{MODEL}']"


def test_values_are_converted_in_the_graph() -> None:
    graph = with_input("3", "steps", "12")
    graph["3"]["inputs"]["cfg"] = {"__value__": "3.5"}
    assert judge(graph).error is None
    assert graph["3"]["inputs"]["steps"] == 12
    assert graph["3"]["inputs"]["cfg"] == 3.5


def test_an_error_far_from_the_output_leaves_the_summary_empty() -> None:
    verdict = judge(with_input("4", "ckpt_name", "absent.safetensors"))
    assert verdict.error is not None
    assert verdict.error["details"] == ""
    assert verdict.node_errors["4"]["dependent_outputs"] == ["9"]


def test_an_error_at_the_output_is_in_the_summary() -> None:
    graph = flat()
    del graph["2"]["inputs"]["images"]
    verdict = judge(graph)
    assert verdict.error is not None
    assert verdict.error["details"] == "Required input is missing: images"


def test_a_loop_has_no_error_of_its_own() -> None:
    graph = flat()
    graph["1"] = {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}}
    graph["3"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    verdict = judge(graph)
    assert verdict.error is not None
    assert verdict.error["type"] == "prompt_outputs_failed_validation"
    assert verdict.node_errors == {}


@pytest.mark.parametrize(("name", "accepted"), [("there.png", True), ("absent.png", False)])
def test_a_picture_to_load_is_judged_by_its_file(name: str, accepted: bool) -> None:
    graph = flat()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    assert (judge(graph).error is None) == accepted


def test_one_good_output_is_enough() -> None:
    graph = flat() | {"5": {"class_type": "SaveImage", "inputs": {"images": ["77", 0], "filename_prefix": "x"}}}
    verdict = judge(graph)
    assert verdict.error is None
    assert verdict.outputs == ["2"]
    assert only_error(verdict, "5")["type"] == "exception_during_validation"


def test_targets_choose_outputs() -> None:
    graph = flat() | {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    assert judge(graph).outputs == ["2", "3"]
    assert judge(graph, targets=["3"]).outputs == ["3"]
    none = judge(graph, targets=["1"]).error
    assert none is not None
    assert none["type"] == "prompt_no_outputs"


def test_an_unknown_class_is_reported_by_version() -> None:
    graph = flat() | {"8": {"class_type": "Absent", "inputs": {}, "_meta": {"title": "My node"}}}
    old, new = judge(graph).error, judge(graph, version="0.45.2").error
    assert old is not None
    assert old["type"] == "invalid_prompt"
    assert new is not None
    assert new["type"] == "missing_node_type"
    assert new["extra_info"] == {"node_id": "8", "class_type": "Absent", "node_title": "My node"}


@pytest.mark.parametrize(("version", "accepted"), [("0.3.34", False), ("0.3.64", True), ("0.45.2", False)])
def test_a_choice_of_the_newer_interface_is_not_compared_by_a_server_that_just_got_it(
    version: str, accepted: bool
) -> None:
    """Tried on 0.3.64."""
    graph = flat()
    graph["3"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "absent.pth"}}
    graph["4"] = {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["3", 0], "image": ["1", 0]}}
    graph["2"]["inputs"]["images"] = ["4", 0]
    assert (judge(graph, version).error is None) == accepted
