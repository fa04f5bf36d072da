"""One simulator's parts in one place, for the modules that answer requests. No logic."""

from dataclasses import dataclass

from comfyui.simulator.catalog import Catalog
from comfyui.simulator.context import Rig
from comfyui.simulator.events import Sockets
from comfyui.simulator.executor import Executor
from comfyui.simulator.queue import PromptQueue


@dataclass
class Simulator:
    """Everything a request can touch."""

    rig: Rig
    catalog: Catalog
    queue: PromptQueue
    sockets: Sockets
    executor: Executor
    #: What GET /system_stats shows as the command line.
    argv: list[str]
    max_upload_bytes: int
    #: Counts the prompts posted; the next prompt's number.
    counter: int = 0
