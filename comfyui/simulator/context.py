"""What a node may count on: the values that links carry, what it gives back, and the world outside its inputs.

Types only; executor.py makes the Context, nodes.py uses it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from comfyui.simulator.cards import Memory, Pace
from comfyui.simulator.drawing import Pixels
from comfyui.simulator.folders import Folders
from comfyui.simulator.graph import Graph
from comfyui.simulator.journal import Journal
from comfyui.simulator.mischief import Mischief
from comfyui.simulator.scenery import Colour
from comfyui.simulator.versions import Release

OUT_OF_MEMORY = "torch.OutOfMemoryError"


class NodeFailure(Exception):
    """A node fails with an exception of the real server's: its full type name and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class Rig:
    """The simulated machine."""

    release: Release
    folders: Folders
    pace: Pace
    memory: Memory
    mischief: Mischief
    journal: Journal
    chance: random.Random
    #: True when samplers send previews.
    previews: bool
    #: True when nothing may cost processor time: pictures are flat then.
    idle_work: bool


@dataclass(frozen=True)
class Picture:
    """One picture: pixels, or a single colour as long as nobody needs pixels."""

    width: int
    height: int
    colour: Colour = (0, 0, 0)
    pixels: Pixels | None = None

    def painted(self) -> Pixels:
        return self.pixels if self.pixels is not None else Image.new("RGB", (self.width, self.height), self.colour)

    def map(self, work: Callable[[Pixels], Pixels]) -> "Picture":
        """The picture after some work on its pixels."""
        pixels = work(self.painted())
        return Picture(pixels.width, pixels.height, pixels=pixels)


#: What an IMAGE link carries.
Batch = list[Picture]


@dataclass(frozen=True)
class Latent:
    """What a LATENT link carries: the pictures in it, or only a size as long as nothing was drawn."""

    width: int
    height: int
    count: int
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a node gives: a value for each output slot, and what is shown for it."""

    values: tuple[Any, ...] = ()
    shown: dict[str, Any] | None = None


def as_text(value: Any) -> str:
    """A value where the real server shows it as text; pictures and latents as tensors, without their numbers."""
    shown = value is None or isinstance(value, str | int | float | bool | dict)
    return str(value) if shown else "tensor([[[[...]]]])"


@dataclass(frozen=True)
class Context:
    """What a node may use beyond its inputs."""

    rig: Rig
    graph: Graph
    extra_data: dict[str, Any]
    #: Five letters that belong to this node as long as it stays in the prompts.
    letters: str
    #: Reports progress: value, maximum, and a picture as ("JPEG" or "PNG", bytes). Raises when the prompt was
    #: interrupted: the only moment inside a node when it can be.
    tick: Callable[[int, int, tuple[str, bytes] | None], Awaitable[None]]
    #: The moment for faults in the middle of a prompt.
    midway: Callable[[], Awaitable[None]]

    async def spend(self, seconds: float) -> None:
        """Lets time pass as if the card worked."""
        await asyncio.sleep(seconds)
