"""A whole fleet of real processes for a test, on ports of the kernel's choice, ended whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.fleet import Fleet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fleet"


@pytest.fixture
def fleet(folder: Path) -> Iterator[Fleet]:
    """Two workers over two quick simulators."""
    with Fleet(folder, workers=2, simulator=["--speed", "4"]) as running:
        yield running
