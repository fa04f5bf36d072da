"""Workflows and waits for the client's contract suite. Waits are on conditions; their bound only means "stuck"."""

import random
import select
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from comfyui import workflow
from comfyui.client import ComfyClient
from comfyui.messages import Executing, Message
from comfyui.replies import Finished, Found, HistoryEntry
from comfyui.workflow import Workflow

T = TypeVar("T")

STUCK_S = 60.0


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def model_free(colour: int | None = None) -> Workflow:
    """An inverted square. Each call gives another colour, so that no result is cached."""
    colour = colour if colour is not None else random.randrange(1 << 24)
    return workflow.of(
        {
            "1": node("EmptyImage", width=64, height=64, batch_size=1, color=colour),
            "2": node("ImageInvert", image=["1", 0]),
            "9": node("SaveImage", images=["2", 0], filename_prefix="contract"),
        }
    )


def sampled(checkpoint: str, *, steps: int) -> Workflow:
    """Noise, small and new each time."""
    return workflow.of(
        {
            "3": node(
                "KSampler",
                seed=random.randrange(1 << 64),
                steps=steps,
                cfg=7,
                sampler_name="euler",
                scheduler="normal",
                denoise=1,
                model=["4", 0],
                positive=["6", 0],
                negative=["7", 0],
                latent_image=["5", 0],
            ),
            "4": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "6": node("CLIPTextEncode", text="a lighthouse at dusk", clip=["4", 1]),
            "7": node("CLIPTextEncode", text="", clip=["4", 1]),
            "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
            "9": node("SaveImage", images=["8", 0], filename_prefix="contract"),
        }
    )


def submit(client: ComfyClient, work: Workflow) -> str:
    """The id that ComfyUI uses."""
    taken = client.submit(work, str(uuid.uuid4()))
    assert taken.node_errors == {}
    return taken.prompt_id


def until(what: str, ask: Callable[[], T | None]) -> T:
    """The first answer that is neither None, False nor empty."""
    stuck = time.monotonic() + STUCK_S
    while time.monotonic() < stuck:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError(f"never happened: {what}")


def finished(client: ComfyClient, prompt_id: str) -> HistoryEntry:
    def ask() -> HistoryEntry | None:
        found = client.find(prompt_id)
        return found.entry if isinstance(found, Finished) else None

    return until(f"{prompt_id} ends", ask)


def found_as(client: ComfyClient, prompt_id: str, kind: type[Found]) -> None:
    until(f"{prompt_id} is {kind}", lambda: isinstance(client.find(prompt_id), kind))


def hear(client: ComfyClient, last: Callable[[Message], bool]) -> list[Message]:
    """Everything from now to the first message that is `last`, as a worker's loop would hear it."""
    heard: list[Message] = []
    stuck = time.monotonic() + STUCK_S
    while time.monotonic() < stuck:
        if select.select([client.fileno()], [], [], 1.0)[0]:
            for message in client.receive():
                heard.append(message)
                if last(message):
                    return heard
    raise AssertionError(f"never heard; the last messages were {heard[-5:]}")


def hear_to_the_end(client: ComfyClient, prompt_id: str) -> list[Message]:
    return hear(client, lambda message: message == Executing(prompt_id, None))
