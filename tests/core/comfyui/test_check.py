from typing import Any

import pytest

from comfyui.catalogue import union
from comfyui.check import PROBLEMS, check, combined
from comfyui.workflow import WorkflowError, of
from tests.core.comfyui.graphs import SDXL, described, graph, object_info, sdxl

CHECKPOINT = "juggernautXL_v8Rundiffusion.safetensors"
INFO = object_info(CHECKPOINT, "sd_xl_base_1.0.safetensors")


def one(workflow: Any, info: dict[str, Any] = INFO) -> WorkflowError:
    [problem] = check(workflow, info)
    return problem


def test_what_can_run_has_no_problems() -> None:
    assert check(sdxl(), INFO) == ()


def test_an_unknown_class_is_named_with_the_closest() -> None:
    error = one(of({**SDXL, **graph(x=("KSamplr", {}))}))
    assert (error.code, error.kind) == ("unknown_node", "unprocessable")
    assert "node x" in str(error) and "'KSamplr'" in str(error) and "KSampler" in str(error)
    assert error.details["node_id"] == "x" and error.details["class_type"] == "KSamplr"
    closest = error.details["closest"]
    assert isinstance(closest, list) and closest[0] == "KSampler"


def test_an_unknown_model_is_named_with_what_the_fleet_has() -> None:
    error = one(sdxl(ckpt_name="juggernautXL_v9.safetensors"))
    assert error.code == "unknown_model"
    assert "node 4" in str(error) and "juggernautXL_v9.safetensors" in str(error) and CHECKPOINT in str(error)
    assert error.details["node_id"] == "4" and error.details["input"] == "ckpt_name"


def test_few_models_are_all_told_and_of_many_those_that_are_close() -> None:
    few = one(sdxl(ckpt_name="v9.safetensors"), object_info("v1.safetensors", "other.ckpt"))
    assert "the fleet has v1.safetensors, other.ckpt" in str(few)
    many = one(sdxl(ckpt_name="v9.safetensors"), object_info("v1.safetensors", *(f"{n}{n}.ckpt" for n in range(20))))
    assert "closest of the fleet's 21: v1.safetensors" in str(many) and ".ckpt" not in str(many)
    none = one(sdxl(ckpt_name="v9.safetensors"), object_info(*(f"{n}{n}.ckpt" for n in range(20))))
    assert "none of the fleet's 20 is close" in str(none)


def test_a_model_that_one_worker_of_many_has_is_known() -> None:
    fleet = union([object_info("a.safetensors"), object_info("b.safetensors")])
    assert check(sdxl(ckpt_name="b.safetensors"), fleet) == ()


def test_a_fleet_without_any_model_says_so() -> None:
    assert "the fleet has none" in str(one(sdxl(), object_info()))


def test_no_output_node() -> None:
    error = one(of({key: node for key, node in SDXL.items() if key != "9"}))
    assert error.code == "no_output"


@pytest.mark.parametrize(
    ("inputs", "code", "node_id", "reason"),
    [
        ({"width": 10**9}, "value_too_large", "5", "16384"),
        ({"width": -8}, "value_too_small", "5", "16"),
        ({"batch_size": 10**6}, "value_too_large", "5", "4096"),
        ({"steps": 0}, "value_too_small", "3", "1"),
        ({"steps": 10**9}, "value_too_large", "3", "10000"),
        ({"steps": "many"}, "not_a_number", "3", "number"),
        ({"steps": "20.5"}, "not_a_number", "3", "number"),
        ({"steps": 0.9}, "value_too_small", "3", "1"),
        ({"steps": {}}, "not_a_number", "3", "number"),
        ({"steps": None}, "not_a_number", "3", "number"),
        ({"sampler_name": "eulr"}, "unknown_choice", "3", "euler"),
        ({"scheduler": 7}, "unknown_choice", "3", "normal"),
        ({"vae": ["4", 3]}, "unknown_slot", "8", "node 4"),
        ({"positive": "hello"}, "bad_link", "3", "CONDITIONING"),
    ],
)
def test_each_problem_names_node_input_and_bound(inputs: dict[str, Any], code: str, node_id: str, reason: str) -> None:
    error = one(sdxl(**inputs))
    assert (error.code, error.details["node_id"], error.details["input"]) == (code, node_id, next(iter(inputs)))
    assert f"node {node_id} (" in str(error) and reason in str(error)


def test_numbers_in_digits_are_numbers() -> None:
    assert check(sdxl(steps="30"), INFO) == ()


def test_a_missing_input() -> None:
    left = sdxl().graph()
    left["5"] = {**left["5"], "inputs": {"height": 64, "batch_size": 1}}
    error = one(of(left))
    assert (error.code, error.details) == ("missing_input", {"node_id": "5", "input": "width"})


def test_nodes_that_feed_no_output_are_not_looked_at() -> None:
    assert check(of({**SDXL, **graph(x=("CheckpointLoaderSimple", {"ckpt_name": "gone.safetensors"}))}), INFO) == ()


def test_custom_nodes_judge_their_own_choices_but_not_files() -> None:
    custom = described({"mode": [["fast"]], "ckpt": [["none", "a.pth"]]}, module="custom_nodes.x", output_node=True)
    info = object_info(Custom=custom, LoadImage=described({"image": [["old.png"], {"image_upload": True}]}))
    assert check(of(graph(a=("Custom", {"mode": "newest", "ckpt": "none"}))), info) == ()
    assert one(of(graph(a=("Custom", {"mode": "fast", "ckpt": "b.pth"}))), info).code == "unknown_model"
    loads = graph(a=("LoadImage", {"image": "new.png"}), b=("Custom", {"mode": "fast", "ckpt": "none", "i": ["a", 0]}))
    assert check(of(loads), info) == ()


@pytest.mark.parametrize("value", [None, 7, True, {}])
def test_a_file_to_load_has_a_name(value: object) -> None:
    loads = graph(a=("LoadImage", {"image": value}), b=("SaveImage", {"images": ["a", 0], "filename_prefix": "x"}))
    error = one(of(loads))
    assert (error.code, error.details) == ("bad_path", {"node_id": "a", "input": "image"})


def test_dynamic_and_multiple_choices_are_left_to_comfyui() -> None:
    info = {
        "Late": described(
            {"shape": ["COMFY_DYNAMICCOMBO_V3", {}], "many": ["COMBO", {"options": ["a"], "multiselect": True}]},
            output_node=True,
        )
    }
    assert check(of(graph(a=("Late", {"many": {"__value__": ["a", "a"]}}))), info) == ()


def test_many_problems_become_one_error_that_lists_them() -> None:
    problems = check(sdxl(steps=0, width=0, ckpt_name="x.safetensors"), INFO)
    error = combined(problems)
    assert str(error) == f"{problems[0]} (and 2 more)"
    listed = error.details["problems"]
    assert isinstance(listed, list) and [entry["code"] for entry in listed] == [p.code for p in problems]
    assert combined(problems[:1]).args == problems[0].args


def test_the_search_stops_after_enough_problems() -> None:
    missing = graph(**{str(n): ("Nope", {}) for n in range(100)})
    assert len(check(of(missing), INFO)) == PROBLEMS
    wrong = graph(**{str(n): ("SaveImage", {"images": "x"}) for n in range(100)})
    assert len(check(of(wrong), INFO)) == PROBLEMS
