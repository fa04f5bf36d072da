"""The StoryDiffusion nodes of a simulator that has them, and every template from its form to a picture."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui.check import check
from comfyui.library import BUILT_IN, load_templates
from comfyui.runnable import lack, stand_ins
from comfyui.simulator.context import NodeFailure
from comfyui.simulator.process import SimulatorProcess, running_simulator
from comfyui.simulator.story_nodes import in_order_of_drawing
from tests.contract.simulator.client import ask, ends, files, hear_until, listening, post, run

TEMPLATES, _ = load_templates(BUILT_IN)
GOLDENS = Path(__file__).parents[2] / "core" / "comfyui" / "goldens"
ANN, BEN = "[Ann] a woman", "[Ben] a man"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with running_simulator(speed=1000, custom_nodes="storydiffusion") as started:
        yield started


@pytest.fixture(scope="module")
def object_info(simulator: SimulatorProcess) -> dict[str, Any]:
    found: dict[str, Any] = ask(f"{simulator.url}/object_info").json
    return found


def upload(simulator: SimulatorProcess, name: str, size: tuple[int, int]) -> None:
    content = BytesIO()
    Image.new("RGB", size, (200, 90, 40)).save(content, "PNG")
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    body = head.encode() + content.getvalue() + b"\r\n--x--\r\n"
    ask(f"{simulator.url}/upload/image", body, headers={"Content-Type": "multipart/form-data; boundary=x"})


@pytest.mark.parametrize(
    ("case", "pictures", "size"),
    [
        ("text-to-image", 2, (832, 1216)),
        ("image-to-image", 1, (1152, 896)),
        ("variations", 8, (1024, 1024)),
        ("upscale", 1, (160, 96)),
        ("story", 3, (832, 1216)),
        ("story.defaults", 4, (768, 768)),
        ("comic.defaults", 1, None),
    ],
)
def test_a_filled_form_becomes_pictures(
    simulator: SimulatorProcess, object_info: dict[str, Any], case: str, pictures: int, size: tuple[int, int] | None
) -> None:
    template = TEMPLATES[case.partition(".")[0]]
    assert lack(template, object_info) is None
    params = json.loads((GOLDENS / case / "params.json").read_text())
    if "picture" in params:
        upload(simulator, params["picture"], (40, 24))
    models = {field.key for field in template.fields if field.type == "model"}
    params = {key: value for key, value in params.items() if key not in models} | stand_ins(template, object_info)
    workflow = template.fill(params, seed=5)
    assert check(workflow, object_info) == ()
    entry = run(simulator.url, workflow.graph())
    assert entry["status"]["status_str"] == "success", entry["status"]
    saved = files({**entry, "outputs": {template.result: entry["outputs"][template.result]}})
    opened = [Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body)) for query in saved]
    assert len(opened) == pictures
    assert size is None or {one.size for one in opened} == {size}


def test_without_the_nodes_a_story_says_which_are_missing() -> None:
    with running_simulator(zero_work=True) as plain:
        found = lack(TEMPLATES["story"], ask(f"{plain.url}/object_info").json)
    assert found is not None and "StoryDiffusion_Apply" in found.text and "StoryDiffusion_KSampler" in found.text


def test_the_nodes_are_shown_as_custom_ones(object_info: dict[str, Any]) -> None:
    encoder = object_info["StoryDiffusion_CLIPTextEncode"]
    assert encoder["python_module"] == "custom_nodes.ComfyUI_StoryDiffusion"
    assert encoder["output"] == ["CONDITIONING", "CONDITIONING", "DIFFINFO", "INT", "INT"]
    assert encoder["output_name"] == ["positive", "negative", "condition", "width", "height"]
    assert encoder["input_order"]["optional"] == ["image", "control_image"]
    assert object_info["StoryDiffusion_KSampler"]["input"]["required"]["seed"][1]["max"] == 2**31 - 1
    assert object_info["StoryDiffusion_Apply"]["input"]["required"]["photomake_ckpt"] == [["none"]]


def test_the_sampler_says_nothing_until_it_is_done(simulator: SimulatorProcess) -> None:
    graph = TEMPLATES["story"].fill({"steps": 3, "size": "256x256"}, seed=6).graph()
    with listening(simulator.url) as socket:
        heard = hear_until(socket, ends(post(simulator.url, graph)))
    running = [m["data"].get("node") for m in heard if m["type"] == "executing"]
    assert "5" in running
    assert [m for m in heard if m["type"] in ("progress", "binary")] == []


def test_pictures_come_character_by_character() -> None:
    scenes = "[Ben] 1\n[Ann] 2 #said\n[NC] 3\n[Ben] 4\nnobody is named"
    words = [" ".join(text.split()) for text in in_order_of_drawing(f"{ANN}\n{BEN}", scenes, "story")]
    assert words == ["a woman 2", "a man 1", "3", "a man 4"]


def test_rows_of_two_are_drawn_in_some_modes_only() -> None:
    scenes = "[Ann] 1\n[Ben] 2\n[Ann] meets [Ben]"
    both = [len(in_order_of_drawing(f"{ANN}\n{BEN}", scenes, mode)) for mode in ("story", "msdiffusion")]
    assert both == [2, 3]
    with pytest.raises(NodeFailure, match="list index"):
        in_order_of_drawing(ANN, "[Ann] 1\n[Ann] meets [Ann]", "msdiffusion")


def test_more_rows_without_a_character_are_lost() -> None:
    assert len(in_order_of_drawing(ANN, "[Ann] 1\n[NC] 2\n[Ann] 3\n[NC] 4", "story")) == 4
    assert len(in_order_of_drawing(f"{ANN}\n{BEN}", "[Ann] 1\n[Ben] 2\n[NC] 3\n[NC] 4", "story")) == 3


@pytest.mark.parametrize(
    ("roles", "scenes", "kind"),
    [
        ("", "[Ann] 1", "IndexError"),
        (f"{ANN}\n{BEN}\n[Cleo] a child", "[Ann] 1\n[Ben] 2\n[Cleo] 3", "IndexError"),
        (f"{ANN}\n{BEN}", "[Ann] 1", "IndexError"),
        (f"{ANN}\n{BEN}", "[Ann] 1\n[Ann] and [Ben] 2", "IndexError"),
        (ANN, "[NC] 1\n[Ann] 2", "TypeError"),
        (f"{ANN}\n{ANN}", "[Ann] 1", "TypeError"),
    ],
)
def test_what_the_nodes_cannot_tell_apart_ends_the_prompt(roles: str, scenes: str, kind: str) -> None:
    with pytest.raises(NodeFailure) as caught:
        in_order_of_drawing(roles, scenes, "story")
    assert caught.value.kind == kind


def test_a_story_of_strangers_fails_as_a_node_does(simulator: SimulatorProcess) -> None:
    graph = TEMPLATES["story"].fill({}, seed=1).graph()
    graph["3"]["inputs"] = {**graph["3"]["inputs"], "role_text": ""}
    entry = run(simulator.url, graph)
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert (errors[0]["node_id"], errors[0]["exception_type"]) == ("3", "IndexError")


@pytest.mark.parametrize(("panels", "rows"), [(1, 1), (5, 2), (8, 2), (9, 2), (13, 3)])
def test_a_page_holds_all_panels_in_rows(simulator: SimulatorProcess, panels: int, rows: int) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 100, "height": 100, "batch_size": panels, "color": 255}},
        "2": {
            "class_type": "Comic_Type",
            "inputs": {
                "image": ["1", 0], "scene_prompts": "\n".join(["(one)"] * panels), "fonts_list": "Inkfree.ttf",
                "text_size": 20, "comic_type": "Classic_Comic_Style", "split_lines": "\n",
            },
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "page"}},
    }  # fmt: skip
    [query] = files(run(simulator.url, graph))
    page = Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body)).convert("RGB")
    heights = {4: 120 * 300 // 300, 6: 120 * 300 // 360}
    assert page.width == 300
    assert page.height == sum(heights[4 if panels <= 8 or row % 2 == 0 else 6] for row in range(rows))
