"""What the simulators say they did, and waiting for what the fleet says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfyui.simulator.journal import read_journal

LIVENESS_S = 60.0


def begun(folder: Path) -> Counter[str]:
    """prompt_id -> how often a simulator began it."""
    entries = (entry for path in folder.glob("simulator-*.jsonl") for entry in read_journal(path))
    return Counter(entry["prompt_id"] for entry in entries if entry["at"] == "started")


def until(question: Callable[[], Any], what: str) -> Any:
    """The first true answer. Fails when there is none for a long time; how long it takes is not the point."""
    deadline = time.monotonic() + LIVENESS_S
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {LIVENESS_S:g} s for {what}")
