import json
import re
from typing import Any

import pytest

from comfyui.catalogue import offers
from comfyui.needs import needs
from comfyui.workflow import of
from tests.core.comfyui.graphs import SDXL, described, graph, object_info, sdxl

CHECKPOINT = "juggernautXL_v8Rundiffusion.safetensors"
INFO = object_info(CHECKPOINT, "other.safetensors")


def test_text_to_image_needs_its_classes_and_its_checkpoint() -> None:
    found = needs(sdxl(), INFO)
    assert found.nodes == tuple(sorted({node["class_type"] for node in SDXL.values()}))
    assert found.models == (f"checkpoints/{CHECKPOINT}",)
    assert (found.files, found.pixels, found.steps) == ((), 1024 * 1024, 20)


def test_needs_are_met_by_what_a_worker_offers() -> None:
    found, able, other = needs(sdxl(), INFO), offers(INFO), offers(object_info("other.safetensors"))
    assert set(found.nodes) <= set(able.nodes) and set(found.models) <= set(able.models)
    assert not set(found.models) <= set(other.models)


def test_pixels_count_the_batch_and_steps_are_added_up() -> None:
    two = sdxl(batch_size=4).graph()
    two["30"] = {**two["3"], "inputs": {**two["3"]["inputs"], "latent_image": ["3", 0], "steps": 5}}
    two["8"] = {**two["8"], "inputs": {**two["8"]["inputs"], "samples": ["30", 0]}}
    found = needs(of(two), INFO)
    assert (found.pixels, found.steps) == (4 * 1024 * 1024, 25)


@pytest.mark.parametrize(
    ("class_type", "inputs", "frames"),
    [
        ("EmptyHunyuanLatentVideo", {"length": 25, "batch_size": 2}, 50),
        ("EmptyLTXVLatentVideo", {"length": 97, "batch_size": 1}, 97),
        ("EmptyMochiLatentVideo", {"length": 25, "batch_size": 1}, 25),
        ("EmptyCosmosLatentVideo", {"length": 121, "batch_size": 1}, 121),
        ("WanImageToVideo", {"length": 81, "batch_size": 1, "positive": ["4", 1]}, 81),
        ("SVD_img2vid_Conditioning", {"video_frames": 14, "motion_bucket_id": 127, "fps": 6}, 14),
        ("SomebodysVideoSampler", {"num_frames": 49}, 49),
        ("EmptyHunyuanLatentVideo", {"length": ["4", 0], "batch_size": 1}, 0),
        ("EmptyHunyuanLatentVideo", {"length": -1, "batch_size": 1}, 0),
    ],
)
def test_a_video_is_as_many_pictures_as_it_has_frames(class_type: str, inputs: dict[str, Any], frames: int) -> None:
    video = sdxl().graph()
    video["5"] = {"class_type": class_type, "inputs": {"width": 848, "height": 480, **inputs}}
    assert needs(of(video), INFO).pixels == 848 * 480 * frames


def test_the_length_of_a_list_of_pictures_is_no_size() -> None:
    some = sdxl(batch_size=4).graph()
    some["20"] = {"class_type": "ImageFromBatch", "inputs": {"image": ["8", 0], "batch_index": 0, "length": 3}}
    some["9"] = {**some["9"], "inputs": {**some["9"]["inputs"], "images": ["20", 0]}}
    assert needs(of(some), INFO).pixels == 4 * 1024 * 1024


def test_nodes_that_feed_no_output_need_no_files() -> None:
    left: dict[str, Any] = {**SDXL, **graph(x=("CheckpointLoaderSimple", {"ckpt_name": "gone.safetensors"}))}
    assert needs(of(left), INFO).models == (f"checkpoints/{CHECKPOINT}",)


def test_pictures_to_load_are_files_and_not_models() -> None:
    loads = graph(
        a=("LoadImage", {"image": "sub/a.png [input]"}),
        b=("Custom", {"picture": "b.pt", "ckpt": "c.pth"}),
        c=("SaveImage", {"images": ["a", 0], "more": ["b", 0], "filename_prefix": "x"}),
    )
    custom = described({"picture": [["b.pt"], {"image_upload": True}], "ckpt": [["c.pth"]]}, module="custom_nodes.x")
    found = needs(of(loads), object_info(Custom=custom))
    assert (found.files, found.models) == (("b.pt", "sub/a.png"), ("Custom.ckpt/c.pth",))


def test_the_signature_is_the_work_and_not_the_words() -> None:
    signature = needs(sdxl(), INFO).signature
    same = [sdxl(seed=7), sdxl(text="a cat"), sdxl(steps=50), sdxl(width=512), sdxl(filename_prefix="x")]
    renamed = json.loads(re.sub(r'"(\d)"', r'"node \1"', json.dumps(SDXL)))
    assert {needs(work, INFO).signature for work in [*same, of(renamed)]} == {signature}
    other = [sdxl(ckpt_name="other.safetensors"), sdxl(sampler_name="heun"), sdxl(clip=["4", 0])]
    assert len({signature, *(needs(work, INFO).signature for work in other)}) == 4


def test_unknown_classes_are_needed_all_the_same_and_what_core_loaders_load() -> None:
    found = needs(sdxl(), {})
    assert "KSampler" in found.nodes and found.steps == 20
    assert found.models == needs(sdxl(), INFO).models != ()
