import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comfyui.catalogue import capability_digest, model, node_class, offers, union
from tests.core.comfyui.graphs import described, object_info
from tests.core.comfyui.strategies import json_values


def test_both_forms_of_choices_are_read() -> None:
    info = {
        "Old": described({"name": [["a", "b"], {"tooltip": "x"}]}),
        "New": described({"name": ["COMBO", {"multiselect": False, "options": ["a", "b"]}]}),
        "Remote": described({"name": ["COMBO", {"remote": {"route": "/x"}}]}),
    }
    choices = []
    for name in info:
        found = node_class(info, name)
        assert found is not None and found.inputs["name"].type == "COMBO"
        choices.append(found.inputs["name"].choices)
    assert choices == [("a", "b"), ("a", "b"), None]


def test_a_class_is_read_whole() -> None:
    found = node_class(object_info("x.safetensors"), "LoadImage")
    assert found is not None
    assert (found.outputs, found.is_output, found.is_core) == (2, False, True)
    assert found.inputs["image"].uploads and found.inputs["image"].required
    custom = node_class({"A": described(module="custom_nodes.pack")}, "A")
    assert custom is not None and not custom.is_core
    assert node_class({}, "A") is None and node_class({"A": 7}, "A") is None


def test_inputs_that_make_no_sense_are_left_out() -> None:
    fields = described(
        {"a": [], "b": 7, "c": [7], "d": [{}], "e": ["INT"], "f": ["COMBO"], "g": ["COMBO", {"options": 7}]}
    )
    found = node_class({"A": fields}, "A")
    assert found is not None and sorted(found.inputs) == ["e", "f", "g"]
    assert {given.choices for given in found.inputs.values()} == {None}


def test_models_are_named_by_their_folder_or_by_the_node_that_loads_them() -> None:
    assert model("unCLIPCheckpointLoader", "ckpt_name", "x.safetensors") == "checkpoints/x.safetensors"
    assert model("QuadrupleCLIPLoader", "clip_name3", "t5") == "text_encoders/t5"
    assert model("VAELoader", "vae_name", "taesd") == "vae/taesd"
    assert model("StoryDiffusion_Apply", "photomake_ckpt", "p.BIN") == "StoryDiffusion_Apply.photomake_ckpt/p.BIN"
    assert model("StoryDiffusion_Apply", "photomake_ckpt", "none") is None
    assert model("KSampler", "steps", 7) is None


def test_offers_are_the_strings_that_workflows_need() -> None:
    extra = {
        "LoraLoader": described({"lora_name": [["l/a.safetensors"]], "model": ["MODEL"]}),
        "Custom": described({"ckpt": [["none", "z.pth"]], "mode": [["fast"]]}, module="custom_nodes.x"),
        "LoadLatent": described({"latent": [["a.pt"]]}),
        "Broken": 7,
    }
    found = offers({**object_info("x.safetensors", "y.ckpt"), **extra})
    assert found.models == (
        "Custom.ckpt/z.pth",
        "checkpoints/x.safetensors",
        "checkpoints/y.ckpt",
        "loras/l/a.safetensors",
    )
    assert "KSampler" in found.nodes and "Custom" in found.nodes and "Broken" not in found.nodes
    assert list(found.nodes) == sorted(found.nodes)


def test_a_fleet_has_the_classes_and_choices_of_all_its_workers() -> None:
    first, second = object_info("a.safetensors", "b.safetensors"), object_info("b.safetensors", "c.safetensors")
    first["OnlyHere"] = described()
    second["KSampler"]["input"]["required"]["sampler_name"] = ["COMBO", {"options": ["euler", "newest"]}]
    untouched = json.dumps([first, second])
    fleet = union([first, second])
    assert set(offers(fleet).nodes) == set(first) | set(second)
    assert offers(fleet).models == tuple(f"checkpoints/{name}.safetensors" for name in "abc")
    sampler = node_class(fleet, "KSampler")
    assert sampler is not None and sampler.inputs["sampler_name"].choices == ("euler", "heun", "dpmpp_2m", "newest")
    assert json.dumps([first, second]) == untouched
    assert union([]) == {} and union([first]) == first


def test_a_class_of_a_fleet_is_read_once() -> None:
    fleet = union([{"A": described(), "B": 7}])
    assert node_class(fleet, "A") is node_class(fleet, "A") is not None
    assert node_class(fleet, "B") is node_class(fleet, "C") is None
    assert fleet.classes.keys() == {"A"}


def test_the_digest_forgets_uploads_and_remembers_all_else() -> None:
    base = object_info("a.safetensors")
    digest, canonical = capability_digest(base)
    assert digest == hashlib.sha256(canonical).hexdigest()
    assert json.loads(canonical)["LoadImage"]["input"]["required"]["image"] == [[], {"image_upload": True}]
    assert json.loads(canonical)["KSampler"] == base["KSampler"]

    uploaded = object_info("a.safetensors")
    uploaded["LoadImage"]["input"]["required"]["image"][0].append("b.png")
    assert capability_digest(dict(reversed(uploaded.items())))[0] == digest

    for other in (object_info("b.safetensors"), object_info("a.safetensors", New=described())):
        assert capability_digest(other)[0] != digest
    new_form: dict[str, Any] = {"LoadVideo": described({"file": ["COMBO", {"options": ["v"], "video_upload": True}]})}
    assert b'"options":[]' in capability_digest(new_form)[1]


def test_what_cannot_be_written_down_is_left_out_of_the_digest() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    info = {"Deep": {"input": {}, "x": deep}, "NaN": {"input": {}, "x": float("nan")}, "A": {"y": "\ud800"}, "B": 7}
    assert json.loads(capability_digest(info)[1]) == {"A": {"input": {}, "y": "?"}}


_keys = st.sampled_from(["input", "required", "optional", "output", "options", "image_upload", "LoadImage", "A"])
_infos = st.dictionaries(
    st.sampled_from(["LoadImage", "A", "CheckpointLoaderSimple"]),
    st.recursive(
        json_values | st.just("COMBO"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
        max_leaves=15,
    ),
)


@given(_infos, _infos)
def test_any_object_info_is_read_without_an_exception(first: dict[str, Any], second: dict[str, Any]) -> None:
    fleet = union([first, second])
    assert set(offers(first).nodes) <= set(offers(fleet).nodes)
    json.loads(capability_digest(fleet)[1])
