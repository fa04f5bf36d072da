"""What the simulators say they did, and waiting for what the fleet says."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIVENESS_S = 60.0


def begun(folder: Path) -> Counter[str]:
    """prompt_id -> how often a simulator began it."""
    found: Counter[str] = Counter()
    for path in folder.glob("simulator-*.jsonl"):
        entries = (json.loads(line) for line in path.read_text().splitlines())
        found.update(entry["prompt_id"] for entry in entries if entry["event"] == "started")
    return found


def until(question: Callable[[], Any], what: str) -> Any:
    """The first true answer. Fails when there is none for a long time; how long it takes is not the point."""
    deadline = time.monotonic() + LIVENESS_S
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {LIVENESS_S:g} s for {what}")
