"""What the nodes give: pictures of the right size, kind and number, previews, and events, through a running server."""

import urllib.request
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.simulator.client import ask, ends, files, flat, hear_until, listening, painting, post, run


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with running_simulator(speed=50) as started:
        yield started


def pictures(simulator: SimulatorProcess, graph: dict[str, Any]) -> list[Image.Image]:
    """The pictures a prompt ends with."""
    entry = run(simulator.url, graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    return [Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body)).convert("RGB") for query in files(entry)]


def through(node_class: str, name: str, **inputs: Any) -> dict[str, Any]:
    """A flat picture of 32 × 24, through one node, saved."""
    graph = flat()
    graph["5"] = {"class_type": node_class, "inputs": {name: ["1", 0], **inputs}}
    graph["2"]["inputs"]["images"] = ["5", 0]
    return graph


def differ(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


def test_words_seed_and_size_make_the_picture(simulator: SimulatorProcess) -> None:
    (first,) = pictures(simulator, painting("a fox", 1, side=192))
    assert first.size == (192, 192)
    (other_seed,) = pictures(simulator, painting("a fox", 2, side=192))
    (other_words,) = pictures(simulator, painting("a city", 1, side=192))
    (again,) = pictures(simulator, painting("a fox", 1, side=192))
    assert differ(first, other_seed) > 3
    assert differ(first, other_words) > 3
    assert differ(first, again) == 0


def test_a_batch_has_pictures_one_seed_apart(simulator: SimulatorProcess) -> None:
    graph = painting("a bay", 10, side=64)
    graph["5"]["inputs"]["batch_size"] = 2
    first, second = pictures(simulator, graph)
    (next_seed,) = pictures(simulator, painting("a bay", 11, side=64))
    assert differ(first, second) > 1
    assert differ(second, next_seed) == 0


def test_the_prompt_is_in_the_picture(simulator: SimulatorProcess) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}}}
    with listening(simulator.url) as socket:
        prompt_id = post(simulator.url, flat(60), extra_data=extra)
        hear_until(socket, ends(prompt_id))
    (query,) = files(ask(f"{simulator.url}/history/{prompt_id}").json[prompt_id])
    picture = Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body))
    assert picture.info["workflow"] == '{"id": "w"}'
    assert '"color": 60' in str(picture.info["prompt"])


@pytest.mark.parametrize(
    ("node_class", "name", "inputs", "size"),
    [
        ("ImageInvert", "image", {}, (32, 24)),
        ("ImageBlur", "image", {"blur_radius": 3, "sigma": 2.0}, (32, 24)),
        ("ImageScale", "image", {"upscale_method": "area", "width": 64, "height": 0, "crop": "disabled"}, (64, 48)),
        ("ImageScale", "image", {"upscale_method": "bicubic", "width": 10, "height": 30, "crop": "center"}, (10, 30)),
        ("ImageScaleBy", "image", {"upscale_method": "lanczos", "scale_by": 2.0}, (64, 48)),
    ],
)
def test_a_picture_goes_through_a_node(
    simulator: SimulatorProcess, node_class: str, name: str, inputs: dict[str, Any], size: tuple[int, int]
) -> None:
    graph = through(node_class, name, **inputs)
    assert [picture.size for picture in pictures(simulator, graph)] == [size]
    painted = painting(side=64)
    painted["10"] = {"class_type": node_class, "inputs": {name: ["8", 0], **inputs}}
    painted["9"]["inputs"]["images"] = ["10", 0]
    wide = size[0] * 64 // 32 if inputs.get("height") != 30 and "width" not in inputs else size[0]
    assert pictures(simulator, painted)[0].width == wide


def test_inverting_inverts(simulator: SimulatorProcess) -> None:
    (picture,) = pictures(simulator, through("ImageInvert", "image"))
    assert picture.getpixel((0, 0)) == (255, 255, 250)


def test_batches_are_joined_repeated_and_cut(simulator: SimulatorProcess) -> None:
    graph = through("RepeatImageBatch", "image", amount=3)
    graph["6"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0xFF0000}}
    graph["7"] = {"class_type": "ImageBatch", "inputs": {"image1": ["5", 0], "image2": ["6", 0]}}
    graph["8"] = {"class_type": "ImageFromBatch", "inputs": {"image": ["7", 0], "batch_index": 2, "length": 9}}
    graph["2"]["inputs"]["images"] = ["8", 0]
    shown = pictures(simulator, graph)
    assert [picture.size for picture in shown] == [(32, 24)] * 2
    assert shown[1].getpixel((5, 5)) == (255, 0, 0)


def test_an_uploaded_picture_is_changed_no_more_than_asked(simulator: SimulatorProcess) -> None:
    original = Image.radial_gradient("L").resize((128, 96)).convert("RGB")
    buffer = BytesIO()
    original.save(buffer, format="PNG")
    upload(simulator, "mine.png", buffer.getvalue())

    def changed(denoise: float) -> float:
        graph = painting("a city at night", side=64)
        graph["5"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
        graph["10"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["5", 0], "vae": ["4", 2]}}
        graph["3"]["inputs"] |= {"latent_image": ["10", 0], "denoise": denoise}
        (picture,) = pictures(simulator, graph)
        assert picture.size == (128, 96)
        return differ(original, picture)

    assert 0 < changed(0.2) < changed(0.6) < changed(1.0)


def upload(simulator: SimulatorProcess, name: str, content: bytes) -> None:
    mark = "one-part-of-a-form"
    head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    request = urllib.request.Request(
        f"{simulator.url}/upload/image",
        data=head + content + f"\r\n--{mark}--\r\n".encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={mark}"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 200


def test_an_upscale_model_reports_its_tiles(simulator: SimulatorProcess) -> None:
    graph = through("ImageUpscaleWithModel", "image", upscale_model=["6", 0])
    graph["1"]["inputs"] |= {"width": 600, "height": 520}
    graph["6"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x-UltraSharp.pth"}}
    with listening(simulator.url) as socket:
        prompt_id = post(simulator.url, graph)
        heard = hear_until(socket, ends(prompt_id))
    steps = [message["data"] for message in heard if message["type"] == "progress"]
    assert [(step["value"], step["max"]) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (query,) = files(ask(f"{simulator.url}/history/{prompt_id}").json[prompt_id])
    assert Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body)).size == (2400, 2080)


def test_a_second_pass_on_a_larger_latent(simulator: SimulatorProcess) -> None:
    graph = painting(side=64)
    larger = {"samples": ["3", 0], "upscale_method": "bilinear", "scale_by": 1.5}
    graph["20"] = {"class_type": "LatentUpscaleBy", "inputs": larger}
    second = graph["3"]["inputs"] | {"latent_image": ["20", 0], "denoise": 0.5}
    graph["21"] = {"class_type": "KSampler", "inputs": second}
    graph["8"]["inputs"]["samples"] = ["21", 0]
    assert pictures(simulator, graph)[0].size == (96, 96)


def test_loras_and_other_vaes_are_taken(simulator: SimulatorProcess) -> None:
    graph = painting(side=64)
    lora = {"model": ["4", 0], "clip": ["4", 1], "lora_name": "add-detail-xl.safetensors"}
    graph["11"] = {"class_type": "LoraLoader", "inputs": lora | {"strength_model": 0.8, "strength_clip": 1}}
    graph["12"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["11", 1], "stop_at_clip_layer": -2}}
    graph["13"] = {"class_type": "VAELoader", "inputs": {"vae_name": "sdxl_vae.safetensors"}}
    graph["3"]["inputs"]["model"] = ["11", 0]
    graph["6"]["inputs"]["clip"] = graph["7"]["inputs"]["clip"] = ["12", 0]
    graph["8"]["inputs"]["vae"] = ["13", 0]
    assert pictures(simulator, graph)[0].size == (64, 64)


def test_previews_are_jpegs_that_become_the_picture(simulator: SimulatorProcess) -> None:
    with listening(simulator.url) as socket:
        prompt_id = post(simulator.url, painting("a lake", 99, steps=4, side=128))
        heard = hear_until(socket, ends(prompt_id))
    data = [message["data"] for message in heard if message["type"] == "binary"]
    assert len(data) == 4
    shown = [Image.open(BytesIO(part[8 + int.from_bytes(part[4:8], "big") :])) for part in data]
    assert {(picture.format, picture.size) for picture in shown} == {("JPEG", (512, 512))}
    (query,) = files(ask(f"{simulator.url}/history/{prompt_id}").json[prompt_id])
    final = Image.open(BytesIO(ask(f"{simulator.url}/view?{query}").body)).resize((512, 512))
    assert differ(shown[-1], final) < differ(shown[0], final)


def test_previews_can_be_off() -> None:
    with running_simulator(zero_work=True, preview_method="none") as simulator, listening(simulator.url) as socket:
        prompt_id = post(simulator.url, painting())
        heard = hear_until(socket, ends(prompt_id))
    assert "binary" not in {message["type"] for message in heard}
    assert len([message for message in heard if message["type"] == "progress"]) == 4


def test_a_card_too_small_runs_out_of_memory() -> None:
    with running_simulator(zero_work=True, card="gtx-1650") as simulator:
        graph = painting(side=2048)
        kind, data = run(simulator.url, graph)["status"]["messages"][-1]
        assert (kind, data["exception_type"]) == ("execution_error", "torch.OutOfMemoryError")


def test_without_work_pictures_are_flat_and_distinct() -> None:
    with running_simulator(zero_work=True) as simulator:
        one, two = (pictures(simulator, painting(seed=seed, side=1024))[0] for seed in (1, 2))
        assert one.size == two.size == (1024, 1024)
        assert len(one.getcolors() or []) == 1
        assert differ(one, two) > 0


def unknown_input(value: Any) -> dict[str, Any]:
    """A flat picture whose first node has one more input: validation does not look at it, and running does."""
    graph = flat()
    graph["1"]["inputs"]["unknown"] = value
    return graph


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": flat() | {"9": {"class_type": "ImageInvert"}}},
        {"prompt": flat(), "extra_data": None},
        {"prompt": unknown_input(["99", 0])},
    ],
    ids=["a node without inputs", "extra_data null", "an input that no class knows, linked to nowhere"],
)
def test_what_ends_the_real_servers_worker_stops_this_one_too(body: dict[str, Any]) -> None:
    """Tried on 0.3.64 and 0.3.34: such a prompt is accepted, and nothing runs any more until the process is new."""
    with running_simulator(zero_work=True) as simulator:
        assert ask(f"{simulator.url}/prompt", body).status == 200
        post(simulator.url, flat(9))
        queue = ask(f"{simulator.url}/queue").json
        assert (len(queue["queue_running"]), len(queue["queue_pending"])) == (1, 1)


def test_nodes_that_turn_in_circles_fail_their_prompt_with_the_status_of_the_one_before() -> None:
    """Tried on 0.3.64."""
    with running_simulator(zero_work=True) as simulator:
        circle, huge = unknown_input(["2", 0]), flat()
        huge["1"]["inputs"] |= {"width": 16384, "height": 16384, "batch_size": 4096}
        for before, status in ((flat(7), "success"), (huge, "error")):
            run(simulator.url, before)
            entry = run(simulator.url, circle)
            kind, data = entry["status"]["messages"][-1]
            assert (kind, data["node_id"]) == ("execution_error", "2")
            assert data["exception_type"] == "graph.DependencyCycleError"
            assert (entry["status"]["status_str"], entry["outputs"]) == (status, {})


@pytest.mark.parametrize(("source", "text"), [(None, "None"), ({"a": [1]}, '{"a": [1]}'), (True, "True")])
def test_anything_is_shown_as_text(simulator: SimulatorProcess, source: Any, text: str) -> None:
    entry = run(simulator.url, {"1": {"class_type": "PreviewAny", "inputs": {"source": source}}})
    assert entry["outputs"] == {"1": {"text": [text]}}


def test_a_folder_is_named_behind_a_space(simulator: SimulatorProcess) -> None:
    """Tried on 0.3.64: it cuts off one sign more than the bracket, whatever that sign is."""
    upload(simulator, "there.png", b"x")
    query = f"{simulator.url}/view?filename=there.png"
    assert [ask(f"{query}{mark}").status for mark in ("%20[input]", "_[input]", "[input]")] == [200, 200, 404]


def test_scripts_are_served_as_such_and_other_active_files_as_bytes(simulator: SimulatorProcess) -> None:
    """Tried on 0.3.64."""
    kinds = {}
    for name in ("a.js", "a.html", "a.css"):
        upload(simulator, name, b"x")
        with urllib.request.urlopen(f"{simulator.url}/view?type=input&filename={name}", timeout=20) as response:
            kinds[name] = response.headers["Content-Type"]
    bytes_alone = "application/octet-stream"
    assert kinds == {
        "a.js": "application/javascript; charset=utf-8", "a.html": bytes_alone, "a.css": bytes_alone,
    }  # fmt: skip


def test_a_text_in_place_of_an_upload_is_trouble(simulator: SimulatorProcess) -> None:
    """Tried on 0.3.64: it looks for the file of whatever is there."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    posted = [ask(f"{simulator.url}/upload/image", body, headers=form).status for body in (b"image=x", b"image=", b"")]
    assert posted == [500, 400, 400]
