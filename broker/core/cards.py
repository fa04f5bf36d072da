"""What is expected of a card or a model file before it was ever seen at work. Pure, and only a place to start from.

Rough figures for SDXL at 1024 x 1024 from public comparisons, the RTX 4090 being 1: after a few jobs what was measured
counts alone. A card that is not here is taken for a reference card until it shows otherwise.
"""

from __future__ import annotations

import re
from typing import Final

#: Part of a card's name -> speed; the first that fits, so longer names stand before shorter ones.
SPEEDS: Final[tuple[tuple[str, float], ...]] = (
    ("B200", 2.2), ("H200", 1.5), ("H100", 1.4), ("GH200", 1.5), ("A100", 0.8), ("L40S", 0.85), ("L40", 0.75),
    ("L4", 0.25), ("A40", 0.5), ("A30", 0.45), ("A10G", 0.33), ("A10", 0.33), ("V100", 0.35), ("P100", 0.12),
    ("T4", 0.13), ("RTX PRO 6000", 1.4), ("RTX 6000 Ada", 0.9), ("RTX A6000", 0.52), ("RTX A5000", 0.42),
    ("RTX A4000", 0.28), ("5090", 1.35), ("5080", 0.8), ("5070 Ti", 0.65), ("5070", 0.5), ("5060 Ti", 0.38),
    ("5060", 0.33), ("4090", 1.0), ("4080", 0.7), ("4070 Ti", 0.55), ("4070", 0.43), ("4060 Ti", 0.32),
    ("4060", 0.26), ("3090", 0.55), ("3080 Ti", 0.52), ("3080", 0.47), ("3070", 0.34), ("3060", 0.2),
    ("2080 Ti", 0.28), ("2080", 0.2), ("2070", 0.16), ("2060", 0.13), ("1080 Ti", 0.11), ("1080", 0.08),
)  # fmt: skip
#: A processor instead of a card.
CPU_SPEED: Final = 0.01

#: Kind of model -> bytes of a usual file of it.
SIZES: Final[dict[str, int]] = {
    "checkpoints": 6_500_000_000,
    "diffusion_models": 12_000_000_000,
    "text_encoders": 5_000_000_000,
    "clip_vision": 2_500_000_000,
    "controlnet": 2_500_000_000,
    "photomaker": 1_000_000_000,
    "style_models": 1_000_000_000,
    "model_patches": 1_000_000_000,
    "vae": 300_000_000,
    "loras": 200_000_000,
    "upscale_models": 70_000_000,
}
OTHER_SIZE: Final = 500_000_000
#: Disk to card, through ComfyUI's loader.
LOAD_BYTES_PER_MS: Final = 700_000
#: A picture of a million pixels in twenty steps on the reference card, and a job of which nothing is known.
RUN_MS_PER_UNIT: Final = 4_000 / ((1 << 20) * 20)
RUN_MS: Final = 5_000


def speed_of(name: str, kind: str) -> float:
    """How fast a card of this name is thought to be."""
    if kind == "cpu":
        return CPU_SPEED
    for part, speed in SPEEDS:
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(part)}(?![0-9])", name):
            return speed
    return 1.0


def size_of(model: str) -> int:
    """The usual size of a model's file; model: "kind/name"."""
    return SIZES.get(model.partition("/")[0], OTHER_SIZE)
