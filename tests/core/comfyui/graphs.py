"""Workflows and node classes that several tests share."""

import json
from pathlib import Path
from typing import Any

from comfyui import workflow
from comfyui.workflow import Workflow

ROOT = Path(__file__).parents[3]
SDXL: dict[str, Any] = json.loads((ROOT / "comfyui" / "api.json").read_bytes())


def sdxl(**inputs: object) -> Workflow:
    """Text to image; `seed`, `text` and the like set the input of that name wherever it stands."""
    graph = json.loads(json.dumps(SDXL))
    for node in graph.values():
        node["inputs"].update({name: value for name, value in inputs.items() if name in node["inputs"]})
    return workflow.of(graph)


def graph(**nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}


def described(
    required: dict[str, Any] | None = None, outputs: int = 1, *, output_node: bool = False, module: str = "nodes"
) -> dict[str, Any]:
    """A node class as /object_info describes it."""
    return {
        "input": {"required": required if required is not None else {}},
        "output": ["X"] * outputs,
        "output_node": output_node,
        "python_module": module,
    }


def object_info(*checkpoints: str, **classes: dict[str, Any]) -> dict[str, Any]:
    """A ComfyUI that can run SDXL text to image with these checkpoints, and these classes besides."""
    number = ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}]
    whole = ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}]
    return {
        "CheckpointLoaderSimple": described({"ckpt_name": [list(checkpoints), {"tooltip": "x"}]}, 3),
        "EmptyLatentImage": described(
            {"width": whole, "height": whole, "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}]}
        ),
        "CLIPTextEncode": described({"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]}),
        "KSampler": described(
            {
                "model": ["MODEL"],
                "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                "steps": ["INT", {"min": 1, "max": 10000}],
                "cfg": number,
                "sampler_name": ["COMBO", {"options": ["euler", "heun", "dpmpp_2m"]}],
                "scheduler": [["normal", "karras"]],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
                "denoise": number,
            }
        ),
        "VAEDecode": described({"samples": ["LATENT"], "vae": ["VAE"]}),
        "SaveImage": described({"images": ["IMAGE"], "filename_prefix": ["STRING"]}, 0, output_node=True),
        "LoadImage": described({"image": [["a.png"], {"image_upload": True}]}, 2),
        **classes,
    }
