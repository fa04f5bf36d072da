"""What one ComfyUI offers, read out of its /object_info: node classes, their inputs, and the files it has.

/object_info is untrusted and differs between versions and custom nodes: what makes no sense is left out, and nothing
here raises for it. Model files are opaque strings such as "checkpoints/x.safetensors", made alike for what a workflow
needs and for what a worker offers, so that matching them is a set test. Pure.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfyui.workflow import FILE_INPUTS, Node

MODEL_SUFFIXES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")

_KINDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    # folder kind -> input -> the classes of ComfyUI 0.3.34 to 0.3.64 that load from it
    "checkpoints": {
        "ckpt_name": (
            "CheckpointLoaderSimple",
            "CheckpointLoader",
            "unCLIPCheckpointLoader",
            "ImageOnlyCheckpointLoader",
            "CreateHookModelAsLora",
            "CreateHookModelAsLoraModelOnly",
        )
    },
    "loras": {"lora_name": ("LoraLoader", "LoraLoaderModelOnly", "CreateHookLora", "CreateHookLoraModelOnly")},
    "vae": {"vae_name": ("VAELoader",)},
    "diffusion_models": {"unet_name": ("UNETLoader",)},
    "text_encoders": {
        "clip_name": ("CLIPLoader",),
        "clip_name1": ("DualCLIPLoader", "TripleCLIPLoader", "QuadrupleCLIPLoader"),
        "clip_name2": ("DualCLIPLoader", "TripleCLIPLoader", "QuadrupleCLIPLoader"),
        "clip_name3": ("TripleCLIPLoader", "QuadrupleCLIPLoader"),
        "clip_name4": ("QuadrupleCLIPLoader",),
    },
    "clip_vision": {"clip_name": ("CLIPVisionLoader",)},
    "controlnet": {"control_net_name": ("ControlNetLoader", "DiffControlNetLoader")},
    "style_models": {"style_model_name": ("StyleModelLoader",)},
    "gligen": {"gligen_name": ("GLIGENLoader",)},
    "upscale_models": {"model_name": ("UpscaleModelLoader",)},
    "hypernetworks": {"hypernetwork_name": ("HypernetworkLoader",)},
    "photomaker": {"photomaker_model_name": ("PhotoMakerLoader",)},
    "model_patches": {"name": ("ModelPatchLoader",)},
    "audio_encoders": {"audio_encoder_name": ("AudioEncoderLoader",)},
    "diffusers": {"model_path": ("DiffusersLoader",)},
}
#: (class_type, input) -> folder kind, for the loaders that ComfyUI itself brings.
LOADERS: Final[Mapping[tuple[str, str], str]] = {
    (class_type, name): kind
    for kind, inputs in _KINDS.items()
    for name, class_types in inputs.items()
    for class_type in class_types
}


_LOADER_CLASSES: Final = frozenset(class_type for class_type, _ in LOADERS)


def loads_models(node: Node) -> bool:
    """Whether the time a node takes is that of loading: one of ComfyUI's loaders, or one that names a model file."""
    return node.class_type in _LOADER_CLASSES or any(
        isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES) for value in node.inputs.values()
    )


@dataclass(frozen=True, slots=True)
class Input:
    type: str  # INT, MODEL, ...; COMBO for a choice, however the version writes it
    required: bool
    choices: tuple[object, ...] | None  # None: no choice, or its list is fetched elsewhere
    uploads: bool  # names a file in the input folder; the list changes with each upload
    options: Mapping[str, object]  # default, min, max, ...


@dataclass(frozen=True, slots=True)
class NodeClass:
    name: str
    inputs: Mapping[str, Input]
    outputs: int
    is_output: bool
    is_core: bool  # comes with ComfyUI, so its choice lists are what it validates against


@dataclass(frozen=True, slots=True)
class Offers:
    """What a worker can serve: a job fits when its needed nodes and models are subsets of these."""

    nodes: tuple[str, ...]
    models: tuple[str, ...]


class Catalogue(dict[str, object]):
    """An /object_info that stays as it is, so that each class is read out of it once."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: dict[str, NodeClass] = {}


def node_class(object_info: Mapping[str, object], name: str) -> NodeClass | None:
    """One class out of /object_info; None when it is not there or not a description."""
    kept = object_info.classes if isinstance(object_info, Catalogue) else {}
    if name not in kept and (found := _node_class(object_info, name)) is not None:
        kept[name] = found
    return kept.get(name)


def _node_class(object_info: Mapping[str, object], name: str) -> NodeClass | None:
    fields = object_info.get(name)
    if not isinstance(fields, dict):
        return None
    outputs, module = fields.get("output"), fields.get("python_module")
    return NodeClass(
        name=name,
        inputs=dict(_inputs(name, fields)),
        outputs=len(outputs) if isinstance(outputs, list) else 0,
        is_output=fields.get("output_node") is True,
        is_core=isinstance(module, str) and not module.startswith("custom_nodes"),
    )


def _inputs(class_type: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Input]]:
    for section, name, entry in _entries(fields):
        options = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
        uploads = _uploads(class_type, name, options)
        choices = _choices(entry)
        kind = entry[0] if isinstance(entry[0], str) else "COMBO"
        known = tuple(choices) if choices is not None else None
        yield name, Input(kind, section == "required", known, uploads, options)


def _entries(fields: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """(section, input, [type, options?]) for each declared input."""
    inputs = fields.get("input")
    for section in ("required", "optional"):
        declared = inputs.get(section) if isinstance(inputs, dict) else None
        for name, entry in declared.items() if isinstance(declared, dict) else ():
            if isinstance(entry, list) and entry and isinstance(entry[0], str | list):
                yield section, name, entry


def _choices(entry: list[Any]) -> list[object] | None:
    """The list of choices, in the old form [[a, b], {...}] or the new ["COMBO", {"options": [a, b]}]."""
    if isinstance(entry[0], list):
        return entry[0]
    if entry[0] == "COMBO" and len(entry) > 1 and isinstance(entry[1], dict):
        options = entry[1].get("options")
        return options if isinstance(options, list) else None
    return None


def _with_choices(entry: list[Any], choices: list[object]) -> list[Any]:
    if isinstance(entry[0], list):
        return [choices, *entry[1:]]
    return [entry[0], {**entry[1], "options": choices}, *entry[2:]]


def _uploads(class_type: str, name: str, options: Mapping[str, object]) -> bool:
    marked = any(key.endswith("_upload") and value is True for key, value in options.items())
    return marked or (class_type, name) in FILE_INPUTS


def model(class_type: str, name: str, value: object) -> str | None:
    """The opaque string of the model file that this input names; None when it names none."""
    if not isinstance(value, str):
        return None
    kind = LOADERS.get((class_type, name))
    if kind is not None:
        return f"{kind}/{value}"
    return f"{class_type}.{name}/{value}" if value.lower().endswith(MODEL_SUFFIXES) else None


def offers(object_info: Mapping[str, object]) -> Offers:
    nodes: set[str] = set()
    models: set[str] = set()
    for class_type in object_info:
        found = node_class(object_info, class_type)
        if found is None:
            continue
        nodes.add(class_type)
        for name, given in found.inputs.items():
            if given.choices is not None and not given.uploads:
                models.update(filter(None, (model(class_type, name, choice) for choice in given.choices)))
    return Offers(tuple(sorted(nodes)), tuple(sorted(models)))


def union(object_infos: Iterable[Mapping[str, object]]) -> Catalogue:
    """One /object_info for a fleet: every class of any worker, each choice with the values of all of them."""
    fleet = Catalogue()
    for object_info in object_infos:
        for class_type, fields in object_info.items():
            if not isinstance(fields, dict):
                continue
            known = fleet.get(class_type)
            fleet[class_type] = _joined(known, fields) if isinstance(known, dict) else fields
    return fleet


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> Mapping[str, Any]:
    """`first`, with the choices of `second` added to its own."""
    more = {(section, name): _choices(entry) for section, name, entry in _entries(second)}
    inputs = dict(first["input"]) if isinstance(first.get("input"), dict) else {}
    for section, name, entry in _entries(first):
        own, others = _choices(entry), more.get((section, name))
        added = [choice for choice in others if choice not in own] if own is not None and others else []
        if own is not None and added:
            inputs[section] = {**inputs[section], name: _with_choices(entry, own + added)}
    return {**first, "input": inputs}


def capability_digest(object_info: Mapping[str, object]) -> tuple[str, bytes]:
    """(sha256 in hex, canonical JSON) of what a server can do.

    The lists of uploaded files are emptied: they change with every upload, while the abilities do not.
    """
    described: list[str] = []
    for class_type in sorted(object_info):
        fields = object_info[class_type]
        if not isinstance(fields, dict):
            continue
        inputs = dict(fields["input"]) if isinstance(fields.get("input"), dict) else {}
        for section, name, entry in _entries(fields):
            options = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
            if _choices(entry) is not None and _uploads(class_type, name, options):
                inputs[section] = {**inputs[section], name: _with_choices(entry, [])}
        try:
            described.append(f"{_canonical(class_type)}:{_canonical({**fields, 'input': inputs})}")
        except (RecursionError, ValueError):
            continue  # nested too deeply, or with numbers that are none
    canonical = f"{{{','.join(described)}}}".encode(errors="replace")
    return hashlib.sha256(canonical).hexdigest(), canonical


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
