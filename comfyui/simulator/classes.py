"""The node classes a simulator has: what each takes and gives.

Pure data; catalog.py shows it, nodes.py does the work. Names, types, bounds and choices are those of the real server's
classes (0.3.34 and 0.3.64), the help texts are our own.
"""

from dataclasses import dataclass, field
from typing import Any

SAMPLERS = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2", "dpm_2",
    "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis", "res_multistep",
    "res_multistep_cfg_pp", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp",
    "gradient_estimation", "gradient_estimation_cfg_pp", "er_sde", "seeds_2", "seeds_3", "sa_solver",
    "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2",
]  # fmt: skip
NOT_IN_0334 = ("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "sa_solver", "sa_solver_pece")
SCHEDULERS_0334 = [
    "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta",
    "linear_quadratic", "kl_optimal",
]  # fmt: skip
SCHEDULERS = [
    "simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal",
    "linear_quadratic", "kl_optimal",
]  # fmt: skip
SCALING = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
LATENT_SCALING = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]


@dataclass(frozen=True)
class Choice:
    """An input whose values are a list: given, or the files of a folder kind (`values` before, `extra` behind them)."""

    values: tuple[str, ...] = ()
    #: What 0.3.34 offered, where that differs.
    values_0334: tuple[str, ...] | None = None
    files_of: str | None = None
    #: From 0.3.64 on, names that stand for no file.
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """One input: a type name or a choice; options as /object_info shows them, None where it shows none."""

    kind: str | Choice
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Node:
    """One node class."""

    name: str
    title: str | None
    category: str
    inputs: dict[str, Input]
    outputs: tuple[str, ...] = ()
    #: What the outputs are called, where that is not their type.
    output_names: tuple[str, ...] = ()
    optional: dict[str, Input] = field(default_factory=dict)
    module: str = "nodes"
    is_output: bool = False
    #: SaveImage and PreviewImage are handed the prompt; it shows as hidden inputs.
    takes_prompt: bool = False
    description: str = ""
    output_tooltips: tuple[str, ...] = ()
    #: True when 0.3.64 has it in the newer node interface; `title_0334` is what it was called before that.
    newer_interface: bool = False
    title_0334: str | None = None
    #: False when 0.3.34 did not have it.
    in_0334: bool = True


def integer(default: int, low: int, high: int, **more: Any) -> Input:
    return Input("INT", {"default": default, "min": low, "max": high, **more})


def number(default: float, low: float, high: float, step: float, **more: Any) -> Input:
    return Input("FLOAT", {"default": default, "min": low, "max": high, "step": step, **more})


def plain(kind: str, tooltip: str | None = None) -> Input:
    return Input(kind, None if tooltip is None else {"tooltip": tooltip})


def choice(values: list[str], **options: Any) -> Input:
    return Input(Choice(tuple(values)), options if options else None)


def files(kind: str, *extra: str, **options: Any) -> Input:
    return Input(Choice(files_of=kind, extra=extra), options if options else None)


IMAGE = plain("IMAGE")
SIDE = integer(512, 1, 16384, step=1)
_EXTRAS = "comfy_extras."

NODES = (
    Node(
        "KSampler",
        "KSampler",
        "sampling",
        {
            "model": plain("MODEL", "Model that removes the noise."),
            "seed": integer(0, 0, 2**64 - 1, control_after_generate=True, tooltip="Start of the noise."),
            "steps": integer(20, 1, 10000, tooltip="How many steps to take."),
            "cfg": number(8.0, 0.0, 100.0, 0.1, round=0.01, tooltip="How closely to follow the prompt."),
            "sampler_name": Input(
                Choice(tuple(SAMPLERS), tuple(name for name in SAMPLERS if name not in NOT_IN_0334)),
                {"tooltip": "Algorithm of the steps."},
            ),
            "scheduler": Input(
                Choice(tuple(SCHEDULERS), tuple(SCHEDULERS_0334)), {"tooltip": "How the noise shrinks over the steps."}
            ),
            "positive": plain("CONDITIONING", "What to show."),
            "negative": plain("CONDITIONING", "What to avoid."),
            "latent_image": plain("LATENT", "Latent to start from."),
            "denoise": number(1.0, 0.0, 1.0, 0.01, tooltip="Share of the latent that is drawn anew."),
        },
        ("LATENT",),
        description="Draws a latent image from noise.",
        output_tooltips=("The finished latent.",),
    ),
    Node(
        "CheckpointLoaderSimple",
        "Load Checkpoint",
        "loaders",
        {"ckpt_name": files("checkpoints", tooltip="Checkpoint file to load.")},
        ("MODEL", "CLIP", "VAE"),
        description="Loads a checkpoint: model, text encoder and VAE.",
        output_tooltips=("The model.", "The text encoder.", "The VAE."),
    ),
    Node(
        "CLIPTextEncode",
        "CLIP Text Encode (Prompt)",
        "conditioning",
        {
            "text": Input("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "Text to encode."}),
            "clip": plain("CLIP", "Text encoder."),
        },
        ("CONDITIONING",),
        description="Turns text into a conditioning.",
        output_tooltips=("The conditioning.",),
    ),
    Node(
        "CLIPSetLastLayer",
        "CLIP Set Last Layer",
        "conditioning",
        {"clip": plain("CLIP"), "stop_at_clip_layer": integer(-1, -24, -1, step=1)},
        ("CLIP",),
    ),
    Node(
        "VAEDecode",
        "VAE Decode",
        "latent",
        {"samples": plain("LATENT", "Latent to decode."), "vae": plain("VAE", "VAE to decode with.")},
        ("IMAGE",),
        description="Turns a latent into a picture.",
        output_tooltips=("The picture.",),
    ),
    Node("VAEEncode", "VAE Encode", "latent", {"pixels": IMAGE, "vae": plain("VAE")}, ("LATENT",)),
    Node("VAELoader", "Load VAE", "loaders", {"vae_name": files("vae", "pixel_space")}, ("VAE",)),
    Node(
        "EmptyLatentImage",
        "Empty Latent Image",
        "latent",
        {
            "width": integer(512, 16, 16384, step=8, tooltip="Width in pixels."),
            "height": integer(512, 16, 16384, step=8, tooltip="Height in pixels."),
            "batch_size": integer(1, 1, 4096, tooltip="Latents in the batch."),
        },
        ("LATENT",),
        description="An empty latent to draw into.",
        output_tooltips=("The empty latent.",),
    ),
    Node(
        "LatentUpscale",
        "Upscale Latent",
        "latent",
        {
            "samples": plain("LATENT"),
            "upscale_method": choice(LATENT_SCALING),
            "width": integer(512, 0, 16384, step=8),
            "height": integer(512, 0, 16384, step=8),
            "crop": choice(["disabled", "center"]),
        },
        ("LATENT",),
    ),
    Node(
        "LatentUpscaleBy",
        "Upscale Latent By",
        "latent",
        {
            "samples": plain("LATENT"),
            "upscale_method": choice(LATENT_SCALING),
            "scale_by": number(1.5, 0.01, 8.0, 0.01),
        },
        ("LATENT",),
    ),
    Node(
        "RepeatLatentBatch",
        "Repeat Latent Batch",
        "latent/batch",
        {"samples": plain("LATENT"), "amount": integer(1, 1, 64)},
        ("LATENT",),
    ),
    Node(
        "LatentCut",
        None,
        "latent/advanced",
        {
            "samples": plain("LATENT"),
            "dim": choice(["x", "y", "t"]),
            "index": integer(0, -16384, 16384, step=1),
            "amount": integer(1, 1, 16384, step=1),
        },
        ("LATENT",),
        module=_EXTRAS + "nodes_latent",
        newer_interface=True,
        in_0334=False,
    ),
    Node(
        "LoraLoader",
        "Load LoRA",
        "loaders",
        {
            "model": plain("MODEL", "Model to change."),
            "clip": plain("CLIP", "Text encoder to change."),
            "lora_name": files("loras", tooltip="LoRA file."),
            "strength_model": number(1.0, -100.0, 100.0, 0.01, tooltip="Strength on the model."),
            "strength_clip": number(1.0, -100.0, 100.0, 0.01, tooltip="Strength on the text encoder."),
        },
        ("MODEL", "CLIP"),
        description="Applies a LoRA to a model and its text encoder.",
        output_tooltips=("The changed model.", "The changed text encoder."),
    ),
    Node(
        "LoraLoaderModelOnly",
        "LoraLoaderModelOnly",
        "loaders",
        {
            "model": plain("MODEL"),
            "lora_name": files("loras"),
            "strength_model": number(1.0, -100.0, 100.0, 0.01),
        },
        ("MODEL",),
        description="Applies a LoRA to a model.",
        output_tooltips=("The changed model.", "The changed text encoder."),
    ),
    Node(
        "SaveImage",
        "Save Image",
        "image",
        {
            "images": plain("IMAGE", "Pictures to save."),
            "filename_prefix": Input("STRING", {"default": "ComfyUI", "tooltip": "Start of the file name."}),
        },
        is_output=True,
        takes_prompt=True,
        description="Saves pictures in the output folder.",
    ),
    Node(
        "PreviewImage",
        "Preview Image",
        "image",
        {"images": IMAGE},
        is_output=True,
        takes_prompt=True,
        description="Saves pictures in the temp folder.",
    ),
    Node("LoadImage", "Load Image", "image", {"image": files("input", image_upload=True)}, ("IMAGE", "MASK")),
    Node(
        "EmptyImage",
        "EmptyImage",
        "image",
        {
            "width": SIDE,
            "height": SIDE,
            "batch_size": integer(1, 1, 4096),
            "color": integer(0, 0, 0xFFFFFF, step=1, display="color"),
        },
        ("IMAGE",),
    ),
    Node("ImageInvert", "Invert Image", "image", {"image": IMAGE}, ("IMAGE",)),
    Node(
        "ImageScale",
        "Upscale Image",
        "image/upscaling",
        {
            "image": IMAGE,
            "upscale_method": choice(SCALING),
            "width": integer(512, 0, 16384, step=1),
            "height": integer(512, 0, 16384, step=1),
            "crop": choice(["disabled", "center"]),
        },
        ("IMAGE",),
    ),
    Node(
        "ImageScaleBy",
        "Upscale Image By",
        "image/upscaling",
        {"image": IMAGE, "upscale_method": choice(SCALING), "scale_by": number(1.0, 0.01, 8.0, 0.01)},
        ("IMAGE",),
    ),
    Node("ImageBatch", "Batch Images", "image", {"image1": IMAGE, "image2": IMAGE}, ("IMAGE",)),
    Node(
        "RepeatImageBatch",
        "RepeatImageBatch",
        "image/batch",
        {"image": IMAGE, "amount": integer(1, 1, 4096)},
        ("IMAGE",),
        module=_EXTRAS + "nodes_images",
    ),
    Node(
        "ImageFromBatch",
        "ImageFromBatch",
        "image/batch",
        {"image": IMAGE, "batch_index": integer(0, 0, 4095), "length": integer(1, 1, 4096)},
        ("IMAGE",),
        module=_EXTRAS + "nodes_images",
    ),
    Node(
        "ImageBlur",
        None,
        "image/postprocessing",
        {"image": IMAGE, "blur_radius": integer(1, 1, 31, step=1), "sigma": number(1.0, 0.1, 10.0, 0.1)},
        ("IMAGE",),
        module=_EXTRAS + "nodes_post_processing",
        newer_interface=True,
        title_0334="Image Blur",
    ),
    Node(
        "UpscaleModelLoader",
        "Load Upscale Model",
        "loaders",
        {"model_name": files("upscale_models")},
        ("UPSCALE_MODEL",),
        module=_EXTRAS + "nodes_upscale_model",
        newer_interface=True,
    ),
    Node(
        "ImageUpscaleWithModel",
        "Upscale Image (using Model)",
        "image/upscaling",
        {"upscale_model": plain("UPSCALE_MODEL"), "image": IMAGE},
        ("IMAGE",),
        module=_EXTRAS + "nodes_upscale_model",
        newer_interface=True,
    ),
    Node(
        "PrimitiveString",
        "String",
        "utils/primitive",
        {"value": Input("STRING", {"multiline": False})},
        ("STRING",),
        module=_EXTRAS + "nodes_primitive",
        newer_interface=True,
    ),
    Node(
        "PrimitiveInt",
        "Int",
        "utils/primitive",
        {"value": Input("INT", {"min": 1 - 2**63, "max": 2**63 - 1, "control_after_generate": True})},
        ("INT",),
        module=_EXTRAS + "nodes_primitive",
        newer_interface=True,
    ),
    Node(
        "PreviewAny",
        "Preview Any",
        "utils",
        {"source": Input("*", {})},
        module=_EXTRAS + "nodes_preview_any",
        is_output=True,
    ),
    Node(
        "SaveImageWebsocket",
        "SaveImageWebsocket",
        "api/image",
        {"images": IMAGE},
        module="custom_nodes.websocket_image_save",
        is_output=True,
    ),
)
