"""What the broker is given in these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.runtime import keys
from broker.runtime.config import Config, load


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Keys for a broker, its web and the worker gpu-1."""
    path = tmp_path / "config.ini"
    path.write_text(f"[broker]\ndata = {tmp_path}\n[security]\ncurve = yes\n")
    found = load(path, environ={})
    keys.make_broker(found.security.keys)
    keys.make_peer(found, "web", "web", None)
    keys.make_peer(found, "worker", "gpu-1", None)
    return found
