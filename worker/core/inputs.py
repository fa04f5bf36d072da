"""How input files are called in ComfyUI's input folder, and in the workflow that reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from broker.protocol.records import InputFile
from comfyui.names import split_annotation
from comfyui.workflow import Workflow, set_inputs


def upload_name(file: InputFile) -> str:
    """A name made of the content, so that the same file is there already the next time.

    The extension stays: nodes choose their reader by it.
    """
    extension = re.search(r"\.[A-Za-z0-9]{1,10}\Z", split_annotation(file.name)[0])
    return f"fleet_{file.sha256}{extension[0].lower() if extension else ''}"


def renamed(workflow: Workflow, names: Mapping[str, str]) -> Workflow:
    """The workflow with its files as ComfyUI calls them; names: as the workflow says it -> as ComfyUI does.

    Raises: WorkflowError.
    """
    plain = {split_annotation(said)[0]: found for said, found in names.items()}
    values = {
        (node_id, name): plain[split_annotation(value)[0]]
        for node_id, node in workflow.nodes.items()
        for name, value in node.inputs.items()
        if isinstance(value, str) and split_annotation(value)[0] in plain
    }
    return set_inputs(workflow, values) if values else workflow
