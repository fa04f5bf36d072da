"""The words of a workflow that say what is wanted of it: what a person would search its pictures by. Pure."""

import re
from typing import Final

from comfyui.workflow import Workflow

#: Of all texts together.
TEXT_CHARS: Final = 4_000
_TEXT = re.compile(r"text|prompt|caption|positive", re.IGNORECASE)
_UNWANTED = re.compile(r"neg", re.IGNORECASE)


def prompt_text(workflow: Workflow) -> str:
    """The texts that go into the picture, one a line; not what it is to be kept from."""
    links = [(name, link.node_id) for node in workflow.nodes.values() for name, link in node.links()]
    unwanted = {node_id for name, node_id in links if _UNWANTED.match(name) is not None}
    unwanted -= {node_id for name, node_id in links if _UNWANTED.match(name) is None}
    texts = (
        value
        for node_id in workflow.order
        if node_id not in unwanted
        for name, value in workflow.nodes[node_id].inputs.items()
        if isinstance(value, str) and _TEXT.search(name) is not None and _UNWANTED.match(name) is None
    )
    return "\n".join(dict.fromkeys(texts))[:TEXT_CHARS]
