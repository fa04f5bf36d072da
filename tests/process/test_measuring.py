"""The measuring scripts run, print their table and write their figures; what they find here is not judged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts.figures import Figure, report
from scripts.fleet import ROOT


@pytest.mark.timeout(300)
def test_a_short_chaos_loses_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ended = subprocess.run(
        [ROOT / "scripts" / "chaos", "--jobs", "25", "--kills", "6", "--seed", "3", "--json", figures],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {row["figure"]: row["value"] for row in json.loads(figures.read_text())}
    assert found["accepted"] == 25
    assert found["kills"] == 6
    assert [found[name] for name in ("lost", "stuck", "recorded twice", "failed")] == [0, 0, 0, 0]


def test_a_quick_bench_measures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ended = subprocess.run(
        [ROOT / "scripts" / "bench", "--quick", "--json", figures],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(figures.read_text())
    assert rows
    for row in rows:
        assert row.keys() == {"figure", "value", "unit", "goal", "better", "holds"}


def test_the_exit_status_is_0_only_when_all_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Figure("speed", 3.0, "x", 2.0, ">="), Figure("delay", 9.0, "ms", 8.0, "<=")
    assert report([good], None) == 0
    assert report([good, bad], tmp_path / "f.json") == 1
    assert [row["holds"] for row in json.loads((tmp_path / "f.json").read_text())] == [True, False]
    assert "MISSED" in capsys.readouterr().out
