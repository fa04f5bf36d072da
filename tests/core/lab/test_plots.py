"""The pictures for docs/, where matplotlib is installed (the extra `lab`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.laboratory.plots import SHOWN, save
from tests.core.lab.test_judge import GOOD


def test_a_picture_is_drawn_of_each_measure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra lab is not installed")
    files = save({"same-cards": {"finish_time": GOOD, "SWARM": GOOD}}, tmp_path)
    assert len(files) == len(SHOWN)
    assert all("<svg" in file.read_text() for file in files)
