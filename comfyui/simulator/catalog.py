"""The node classes of one simulator in the shape GET /object_info shows, which prompts are judged by as well.

Pure: lists of files are asked for. Classes written for the server's newer node interface show a slightly different
shape from the version on that moved them to it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from comfyui.simulator.classes import NODES, Choice, Input, Node
from comfyui.simulator.versions import Release

#: Folder kind → the file names there; kind "input" means the input folder.
Files = Callable[[str], list[str]]


def describe(node: Node, release: Release, files_of: Files) -> dict[str, Any]:
    """The class's entry in GET /object_info; lists of files are asked for now, as the real server does."""
    newer = node.newer_interface and release.number >= (0, 3, 64)
    shown = {name: _input(spec, newer, release, files_of) for name, spec in node.inputs.items()}
    if node.name == "PrimitiveString" and not newer:
        shown["value"] = ["STRING", {}]
    info: dict[str, Any] = {"input": {"required": shown}, "input_order": {"required": list(shown)}}
    if node.optional:
        info["input"]["optional"] = {
            name: _input(spec, newer, release, files_of) for name, spec in node.optional.items()
        }
        info["input_order"]["optional"] = list(node.optional)
    if node.takes_prompt:
        info["input"]["hidden"] = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        info["input_order"]["hidden"] = ["prompt", "extra_pnginfo"]
    outputs, names = list(node.outputs), list(node.output_names if node.output_names else node.outputs)
    info |= {"output": outputs, "output_is_list": [False] * len(outputs), "output_name": names}
    if newer:
        info["output_tooltips"] = [None] * len(outputs)
    title = node.title_0334 if node.title_0334 is not None and not newer else node.title
    info |= {"name": node.name, "display_name": title, "description": node.description}
    info |= {"python_module": node.module, "category": node.category, "output_node": node.is_output}
    if newer:
        info |= {"deprecated": False, "experimental": False, "api_node": False}
    elif node.output_tooltips:
        info["output_tooltips"] = list(node.output_tooltips)
    return info


def _input(spec: Input, newer: bool, release: Release, files_of: Files) -> list[Any]:
    if not isinstance(spec.kind, Choice):
        options = {} if newer and spec.options is None else spec.options
        return [spec.kind] if options is None else [spec.kind, options]
    values = _choices(spec.kind, release, files_of)
    if newer:
        return ["COMBO", {"multiselect": False, "options": values, **(spec.options or {})}]
    return [values] if spec.options is None else [values, spec.options]


def _choices(kind: Choice, release: Release, files_of: Files) -> list[str]:
    later = release.number >= (0, 3, 64)
    if kind.files_of is not None:
        return [*kind.values, *files_of(kind.files_of), *(kind.extra if later else ())]
    return list(kind.values if later or kind.values_0334 is None else kind.values_0334)


class Catalog:
    """The classes of one simulator, looked up by name."""

    def __init__(self, release: Release, files_of: Files, custom: Iterable[Node] = ()) -> None:
        self._release = release
        self._files_of = files_of
        core = [node for node in NODES if node.in_0334 or release.number > (0, 3, 34)]
        self._nodes = {node.name: node for node in (*core, *custom)}

    def names(self) -> list[str]:
        return list(self._nodes)

    def entry(self, name: str) -> dict[str, Any] | None:
        """The class as GET /object_info shows it, or None if there is no such class."""
        node = self._nodes.get(name)
        return None if node is None else describe(node, self._release, self._files_of)

    def takes_prompt(self, name: str) -> bool:
        return self._nodes[name].takes_prompt

    def inputs(self, name: str) -> tuple[str, ...]:
        """The inputs the class takes; others in a prompt are ignored."""
        return (*self._nodes[name].inputs, *self._nodes[name].optional)
