"""Templates and a fleet: which can run, which model stands in, and new templates out of workflows."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import workflow
from comfyui.catalogue import union
from comfyui.check import check
from comfyui.fields import Field, Target
from comfyui.library import BUILT_IN, load_templates
from comfyui.offering import Candidate, candidates, results, template_from_workflow
from comfyui.runnable import lack, missing_models, model_choices, stand_ins, wants
from comfyui.template import Template, TemplateError
from comfyui.workflow import Workflow, of
from tests.core.comfyui.graphs import SDXL, described, graph, object_info, sdxl
from tests.core.comfyui.strategies import json_values

TEMPLATES, _ = load_templates(BUILT_IN)
JUGGERNAUT = "juggernautXL_v8Rundiffusion.safetensors"
STORY_NODES = ("StoryDiffusion_Apply", "StoryDiffusion_CLIPTextEncode", "StoryDiffusion_KSampler", "Comic_Type")


def fleet(*checkpoints: str, without: tuple[str, ...] = (), **classes: dict[str, Any]) -> dict[str, Any]:
    """A fleet that can run every template that comes with the program."""
    custom = {name: described({}, 5, module="custom_nodes.ComfyUI_StoryDiffusion") for name in STORY_NODES}
    custom["Comic_Type"] = described({"fonts_list": [["Inkfree.ttf"]]}, module="custom_nodes.ComfyUI_StoryDiffusion")
    core = {
        "UpscaleModelLoader": described({"model_name": ["COMBO", {"options": ["4x-UltraSharp.pth"]}]}),
        "ImageUpscaleWithModel": described({"upscale_model": ["UPSCALE_MODEL"], "image": ["IMAGE"]}),
    }
    plain = {
        name: described() for name in ("ImageScale", "VAEEncode", "RepeatLatentBatch", "ImageFromBatch", "ImageBatch")
    }
    found = object_info(*checkpoints, **{**custom, **core, **plain, **classes})
    return {name: fields for name, fields in found.items() if name not in without}


def why_not(template: Template, object_info: dict[str, Any]) -> str:
    found = lack(template, object_info)
    return found.text if found is not None else ""


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_fleet_can_run_has_nothing_against_it(name: str) -> None:
    assert why_not(TEMPLATES[name], fleet(JUGGERNAUT)) == ""
    assert missing_models(TEMPLATES[name], fleet(JUGGERNAUT)) == {}


def test_nodes_that_no_worker_has_are_named() -> None:
    story = TEMPLATES["story"]
    assert why_not(story, fleet(JUGGERNAUT, without=STORY_NODES[:1])) == "no worker has node StoryDiffusion_Apply"
    assert why_not(story, fleet(JUGGERNAUT, without=STORY_NODES)) == (
        "no worker has the nodes StoryDiffusion_Apply, StoryDiffusion_CLIPTextEncode and StoryDiffusion_KSampler"
    )
    assert why_not(story, {}).endswith(" and 2 more")


def test_what_is_lacking_is_also_a_code_with_its_values() -> None:
    found = lack(TEMPLATES["story"], {})
    assert found is not None and found.code == "no_node" and str(found.values["names"]).endswith(" …")
    found = lack(TEMPLATES["text-to-image"], fleet())
    assert found is not None and (found.code, found.values["name"]) == ("no_model", JUGGERNAUT)


def test_a_model_that_no_worker_has_is_named_with_what_the_fleet_has() -> None:
    template = TEMPLATES["image-to-image"]
    none = f"no worker has {JUGGERNAUT}, and the fleet has none in its place (Model)"
    assert why_not(template, fleet()) == none
    other = union([fleet("b.safetensors"), fleet("a.safetensors")])
    assert why_not(template, other) == ""
    assert stand_ins(template, other) == {"checkpoint": "b.safetensors"}
    told = f"no worker has {JUGGERNAUT}; the fleet has b.safetensors and a.safetensors"
    assert missing_models(template, other) == {"checkpoint": told}
    assert stand_ins(template, fleet("a.safetensors", JUGGERNAUT)) == {}


def test_a_model_that_is_no_field_is_named_too() -> None:
    template = Template("x", "X", "", (), "9", sdxl(ckpt_name="juggernautXL_v9.safetensors"))
    reason = why_not(template, fleet(JUGGERNAUT))
    assert "juggernautXL_v9.safetensors" in reason and JUGGERNAUT in reason


def test_what_a_template_wants_beside_comfyui_itself() -> None:
    known = fleet(JUGGERNAUT)
    assert wants(TEMPLATES["text-to-image"], known) == ((), (f"checkpoints/{JUGGERNAUT}",))
    nodes, models = wants(TEMPLATES["story"], known)
    assert "StoryDiffusion_Apply" in nodes and "KSampler" not in nodes
    assert models == (f"checkpoints/{JUGGERNAUT}",)
    assert "StoryDiffusion_Apply" in wants(TEMPLATES["story"], fleet(JUGGERNAUT, without=STORY_NODES))[0]


def test_a_list_that_no_worker_tells_is_no_reason() -> None:
    untold = fleet(CheckpointLoaderSimple=described({"ckpt_name": ["COMBO", {"remote": {"route": "/x"}}]}, 3))
    template = TEMPLATES["text-to-image"]
    assert (why_not(template, untold), stand_ins(template, untold)) == ("", {})


def test_bounds_of_the_fleet_are_heeded() -> None:
    tight = fleet(JUGGERNAUT, KSampler=described({"steps": ["INT", {"min": 1, "max": 8}]}))
    assert "steps" in why_not(TEMPLATES["text-to-image"], tight)


def test_a_stand_in_must_do_for_its_field() -> None:
    assert "201 characters" in why_not(TEMPLATES["text-to-image"], fleet("x" * 201))


def test_the_largest_seed_is_within_bounds() -> None:
    filled = TEMPLATES["text-to-image"].fill({"prompt": "p", "seed": 2**64 - 1}, seed=0)
    assert check(filled, fleet(JUGGERNAUT)) == ()


def test_only_model_fields_have_models_to_choose_from() -> None:
    template = TEMPLATES["comic"]
    offered = {field.key: model_choices(template, field, fleet("a.safetensors")) for field in template.fields}
    assert {key: choices for key, choices in offered.items() if choices} == {
        "checkpoint": ("a.safetensors",),
        "font": ("Inkfree.ttf",),
    }


# ---- templates out of workflows

WORKFLOW = of({**SDXL, **graph(n=("Odd", {"on": True, "mode": "b", "text": "x", "boxes": {"__value__": [1]}}))})
KNOWN = object_info(
    JUGGERNAUT,
    Odd=described({"mode": [["a", "b"], {"tooltip": "How odd."}], "text": ["STRING", {"multiline": True}]}),
    KSampler=described(
        {
            "seed": ["INT", {"min": 0, "max": 2**31 - 1}],
            "steps": ["INT", {"min": 1, "max": 50, "step": 1}],
            "cfg": ["FLOAT", {"min": 0.0, "max": float("inf"), "step": 0.1}],
            "sampler_name": ["COMBO", {"options": ["euler", "heun"]}],
            "denoise": ["FLOAT", {"min": 2.0, "max": 1.0}],
        }
    ),
)


def candidate(node: str, name: str, info: dict[str, Any], graph_of: Workflow = WORKFLOW) -> Candidate:
    [found] = [one for one in candidates(graph_of, info) if one.field.sets == (Target(node, name),)]
    return found


def test_inputs_become_fields_with_what_the_fleet_says_of_them() -> None:
    found = {one.field.sets[0]: one.field for one in candidates(WORKFLOW, KNOWN)}
    assert found[Target("3", "seed")] == Field("seed", "Seed", "seed", (Target("3", "seed"),), max=2**31 - 1)
    steps = found[Target("3", "steps")]
    assert (steps.type, steps.default, steps.min, steps.max, steps.step) == ("integer", 20, 1, 50, None)
    cfg = found[Target("3", "cfg")]
    assert (cfg.type, cfg.default, cfg.min, cfg.max, cfg.step) == ("number", 8, 0, None, 0.1)
    denoise = found[Target("3", "denoise")]
    assert (denoise.default, denoise.min, denoise.max) == (1, None, None)
    sampler = found[Target("3", "sampler_name")]
    assert (sampler.label, sampler.type, sampler.choices) == ("Sampler name", "choice", ("euler", "heun"))
    model = found[Target("4", "ckpt_name")]
    assert (model.type, model.default, model.choices) == ("model", JUGGERNAUT, ())
    mode = found[Target("n", "mode")]
    assert (mode.type, mode.choices, mode.default, mode.help) == ("choice", ("a", "b"), "b", "How odd.")
    assert (found[Target("n", "on")].type, found[Target("n", "on")].default) == ("switch", True)
    assert found[Target("n", "text")].type == "longtext"
    assert {field.key for target, field in found.items() if target.input == "text"} == {"text", "text_2", "text_3"}
    assert not {Target("3", "model"), Target("n", "boxes")} & found.keys()


def test_without_a_worker_the_values_say_what_they_are() -> None:
    types = {one.field.sets[0].input: one.field.type for one in candidates(WORKFLOW, {})}
    assert types == {
        "ckpt_name": "model", "width": "integer", "height": "integer", "batch_size": "integer", "text": "text",
        "seed": "seed", "steps": "integer", "cfg": "integer", "sampler_name": "text", "scheduler": "text",
        "denoise": "integer", "filename_prefix": "text", "on": "switch", "mode": "text",
    }  # fmt: skip


def test_pictures_can_be_uploaded_and_other_files_cannot() -> None:
    loads = of(graph(a=("LoadImage", {"image": "a.png"}), b=("LoadAudio", {"audio": "a.wav"}), c=("New", {"pic": "a"})))
    info = {"New": described({"pic": [["a"], {"image_upload": True}]})}
    assert [(one.field.key, one.field.type) for one in candidates(loads, info)] == [
        ("image", "image"),
        ("pic", "image"),
    ]


def test_a_default_that_the_node_would_refuse_must_be_given() -> None:
    assert (
        candidate("3", "steps", object_info(KSampler=described({"steps": ["INT", {"max": 8}]}))).field.default is None
    )
    stepped = object_info(KSampler=described({"steps": ["INT", {"min": 1, "max": 81, "step": 4}]}))
    assert (candidate("3", "steps", stepped).field.step, candidate("3", "steps", stepped).field.default) == (None, 20)


def test_a_long_text_stays_whole() -> None:
    [long] = candidates(of(graph(a=("Say", {"text": "x" * 20_000}))), {})
    assert (long.field.type, long.field.default, long.field.max) == ("longtext", "x" * 20_000, 100_000)


def test_names_for_people_come_from_the_node() -> None:
    assert (candidate("6", "text", {}).title, candidate("6", "text", {}).class_type) == (
        WORKFLOW.nodes["6"].extra["_meta"]["title"],
        "CLIPTextEncode",
    )
    assert candidate("n", "on", {}).title == "Odd"
    odd = of(graph(a=("A", {"图": 1, "3d": 1, "x" * 90: 1})))
    assert [one.field.key for one in candidates(odd, {})] == ["field", "field_3d", "x" * 32]


def test_the_result_is_a_node_that_feeds_no_other() -> None:
    assert results(of(SDXL)) == ("9",)
    assert results(WORKFLOW) == ("9", "n")


def test_picked_inputs_make_a_template_that_loads(tmp_path: Path) -> None:
    picked = [candidate(*place, KNOWN).field for place in (("3", "seed"), ("6", "text"), ("4", "ckpt_name"))]
    drafted = template_from_workflow("mine", "Mein <b>Bild</b>", WORKFLOW, picked, description="für mich")
    (tmp_path / "mine").mkdir()
    for name, content in drafted.files.items():
        (tmp_path / "mine" / name).write_bytes(content)
    templates, complaints = load_templates(tmp_path)
    assert (templates, complaints) == ({"mine": drafted.template}, ())
    filled = templates["mine"].fill({"text": "a pier"}, seed=2**31 + 5)
    assert (filled.nodes["6"].inputs["text"], filled.nodes["3"].inputs["seed"]) == ("a pier", 5)
    assert why_not(templates["mine"], {**KNOWN, **object_info(JUGGERNAUT), "Odd": described()}) == ""


def test_what_cannot_be_a_template_is_refused() -> None:
    text = candidate("6", "text", KNOWN).field
    for name, fields, result, reason in (
        ("Mine", [text], "", "the name 'Mine'"),
        ("mine", [text, text], "", "two fields have the key"),
        ("mine", [text], "77", "result node '77'"),
        ("mine", [Field("a", "A", "text", (Target("9", "nope"),))], "", "has no input 'nope'"),
    ):
        with pytest.raises(TemplateError, match=reason):
            template_from_workflow(name, "T", WORKFLOW, fields, result=result)


@given(st.dictionaries(st.sampled_from(["seed", "text", "ckpt_name", "image", "n", "x y"]), json_values), json_values)
def test_every_candidate_is_a_sound_field(inputs: dict[str, Any], options: object) -> None:
    try:
        found = of({"1": {"class_type": "LoadImage", "inputs": inputs}})
    except workflow.WorkflowError:
        return
    info = {"LoadImage": described({name: ["INT", options] for name in ("n", "seed")} | {"text": [["a"], options]})}
    fields = [one.field for one in candidates(found, info)]
    drafted = template_from_workflow("x", "X", found, fields)
    assert json.loads(drafted.files["form.json"])["result"] == "1"


def test_inputs_of_one_name_get_a_key_each() -> None:
    names = ("text", "text", "text 2", "Text", "text_2_2")
    workflow = of({str(at): {"class_type": "Note", "inputs": {name: "words"}} for at, name in enumerate(names)})
    keys = ["text", "text_2", "text_2_2", "text_3", "text_2_2_2"]
    assert [one.field.key for one in candidates(workflow, {})] == keys
