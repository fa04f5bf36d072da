"""The files that nodes made, as the history lists them and the socket tells them: the same shape in both. Pure."""

from dataclasses import dataclass
from typing import Final

FILES: Final = 1_000  # output files of one prompt


class OutputsError(ValueError):
    """Output files are listed senselessly."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a node made, as ComfyUI names it. Untrusted: `ComfyClient.view` checks it before use."""

    node_id: str
    kind: str  # images, gifs, audio, ...
    filename: str
    subfolder: str
    folder: str  # output, temp or input


def output_files(outputs: object) -> tuple[OutputFile, ...]:
    """Every file named under any key of any node: images, gifs, audio and what custom nodes add.

    Raises: OutputsError.
    """
    if not isinstance(outputs, dict):
        return ()
    found = [
        OutputFile(node_id, kind, item["filename"], _subfolder(item), _text(item, "type", "output"))
        for node_id, shown in outputs.items()
        if isinstance(shown, dict)
        for kind, items in shown.items()
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict) and isinstance(item.get("filename"), str)
    ]
    if len(found) > FILES:
        raise OutputsError(f"{len(found)} output files; the limit is {FILES}")
    return tuple(found)


def _subfolder(fields: dict[str, object]) -> str:
    """Custom nodes call the folder itself "." (os.path.relpath) or null, or end with a slash: ComfyUI finds the file.

    Only what says nothing is left out: `ComfyClient.view` checks the rest.
    """
    path = _text(fields, "subfolder", "") if fields.get("subfolder") is not None else ""
    absolute = "/" if path.startswith("/") else ""
    return absolute + "/".join(part for part in path.split("/") if part not in ("", "."))


def _text(fields: dict[str, object], key: str, default: str) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise OutputsError(f"an output file's {key} is not text")
    return value
