"""The measuring scripts run, print their table and write their figures; what they find here is not judged."""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from comfyui.simulator.cards import GIB, Card
from scripts import suites
from scripts.figures import Figure, report, writable
from scripts.fleet import ROOT, Fleet
from scripts.laboratory.real import run
from scripts.laboratory.table import BEGIN, END
from scripts.laboratory.traffic import Job, Model, Scenario, units
from scripts.relay import Relay
from scripts.report import Run
from scripts.suites import path as way


@pytest.mark.timeout(300)
def test_a_short_chaos_loses_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    ended = subprocess.run(
        [ROOT / "scripts" / "chaos", "--jobs", "25", "--kills", "6", "--faults", "8", "--seed", "3",
         "--between", "1", "--json", figures],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {row["figure"]: row["value"] for row in json.loads(figures.read_text())}
    assert found["accepted"] == 25
    assert (found["kills"], found["other faults"]) == (6, 8)
    wrong = (
        "lost",
        "unexpected",
        "stuck 60 s after the last fault",
        "recorded twice",
        "failed",
        "cancelled unasked",
        "pictures not whole",
    )
    assert [found[name] for name in wrong] == [0] * len(wrong)


@pytest.mark.timeout(200)
def test_a_hung_worker_loses_its_job_in_time(tmp_path: Path) -> None:
    found = figures_of(tmp_path, "takeover", "--way", "hung")
    assert found["hung: runs elsewhere after"] <= 20
    assert found["worker back at once: prompts run again"] == 0


@pytest.mark.timeout(200)
def test_a_crowd_comes_back_to_its_broker_and_runs_nothing_again(tmp_path: Path) -> None:
    found = figures_of(tmp_path, "reattach", "--workers", "200")
    assert found["all workers back, after the broker's kill"] <= 60
    assert (found["prompts run again"], found["jobs succeeded"]) == (0, 200)


def figures_of(folder: Path, script: str, *flags: str) -> dict[str, float]:
    """What a script finds, whether or not its goals hold on a busy machine."""
    figures = folder / "figures.json"
    command = [str(ROOT / "scripts" / script), *flags, "--json", str(figures)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert figures.exists(), ended.stdout + ended.stderr
    return {row["figure"]: row["value"] for row in json.loads(figures.read_text())}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", sorted(module.name for module in pkgutil.iter_modules(suites.__path__)))
def test_a_quick_bench_measures(tmp_path: Path, suite: str) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page"
    ended = subprocess.run(
        [ROOT / "scripts" / "bench", suite, "--quick", "--json", figures, "--page", page],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(figures.read_text())
    assert rows
    assert all(row["figure"] in page.read_text() for row in rows)
    for row in rows:
        assert row.keys() == {"figure", "value", "unit", "goal", "better", "spread", "holds"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_bench_that_is_cut_off_tells_what_it_had_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    figures, page, temporary = tmp_path / "figures.json", tmp_path / "page", tmp_path / "temporary"
    temporary.mkdir()
    command = [str(ROOT / "scripts" / "bench"), "gap", "--quick", "--json", str(figures), "--page", str(page)]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as bench:
        assert bench.stdout is not None
        first = next(line for line in bench.stdout if line.startswith("gap at"))
        assert [*temporary.rglob("fleet.sqlite3")]
        children = psutil.Process(bench.pid).children(recursive=True)
        bench.send_signal(number)
        # Whoever holds its output open would hold up the end of it.
        told = [first, *bench.stdout]
    assert bench.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert len(children) >= 11  # broker, web, four workers, five simulators
    until_s = time.monotonic() + 60
    while left := [child for child in children if there(child)] + [*temporary.iterdir()]:
        assert time.monotonic() < until_s, left
        time.sleep(0.05)
    kept = [row["figure"] for row in json.loads(figures.read_text())]
    assert all(line.startswith(tuple(kept)) for line in told)
    if number != signal.SIGKILL:
        assert "**Cut off**" in page.read_text()
        assert kept[0] in page.read_text()


def there(process: psutil.Process) -> bool:
    """One that has ended may wait for somebody who asks how."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_each_worker_of_the_way_to_a_browser_gets_a_job_however_late_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, tick = time.monotonic(), way.Reporter.tick

    def late(self: way.Reporter) -> None:
        if time.monotonic() > began + order.setdefault(self, len(order)) / 4:
            tick(self)

    order: dict[way.Reporter, int] = {}
    monkeypatch.setattr(way.Reporter, "tick", late)
    with Fleet(tmp_path, workers=0) as fleet, way.reporters(fleet) as crew:
        assert len({one.job.job_id for one in crew if one.job is not None}) == way.WORKERS


def test_a_relay_delays_and_does_not_narrow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as far, Relay(far.getsockname()[1], delay_ms=50) as relay:
        near = socket.create_connection(("127.0.0.1", relay.port))
        other, _ = far.accept()
        with near, other:
            began = time.monotonic()
            for number in range(100):
                near.sendall(bytes([number]) * 1_000)
            got = b""
            while len(got) < 100_000:
                got += other.recv(1 << 16)
            assert got == b"".join(bytes([number]) * 1_000 for number in range(100))
            assert time.monotonic() - began >= 0.05


def test_the_exit_status_is_0_only_when_all_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Figure("speed", 3.0, "x", 2.0, ">="), Figure("delay", 9.0, "ms", 8.0, "<=")
    assert report([good], None) == 0
    assert report([good, bad], tmp_path / "f.json") == 1
    assert [row["holds"] for row in json.loads((tmp_path / "f.json").read_text())] == [True, False]
    assert "MISSED" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    assert writable(str(tmp_path / "f.json")) == tmp_path / "f.json"
    for wrong in (tmp_path, tmp_path / "none" / "f.json"):
        with pytest.raises(argparse.ArgumentTypeError, match="name a file in a folder that is there"):
            writable(str(wrong))


def test_a_comfyui_that_no_suite_would_use_is_refused_before_anything_is_measured() -> None:
    command = [str(ROOT / "scripts" / "bench"), "latency", "--comfyui", "http://127.0.0.1:1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == (
        "bench: error: --comfyui is for gap: name it among the suites, or leave --comfyui out"
    )


def test_a_run_tells_and_keeps_what_is_found_until_it_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, page = tmp_path / "f.json", tmp_path / "page"
    run = Run({"one": SimpleNamespace(__doc__="How fast.")}, quick=False, json=figures, page=page)
    closed = []

    def things(*, whole: bool) -> Generator[Figure]:
        try:
            yield Figure("speed", 3.0, "x", 2.0, ">=")
            if not whole:
                raise SystemExit(143)
            yield Figure("delay", 9.0, "ms", 8.0, "<=")
        finally:
            closed.append(whole)

    with pytest.raises(SystemExit):
        run.take("one", things(whole=False))
    assert closed == [False]
    assert "speed" in capsys.readouterr().out
    assert [row["figure"] for row in json.loads(figures.read_text())] == ["speed"]
    assert "**Cut off**" in page.read_text()
    page.write_text(f"{page.read_text()}\nA word of mine.\n")
    run.take("one", things(whole=True))
    assert "**Cut off**" not in page.read_text()
    assert "| delay |" in page.read_text()
    assert page.read_text().endswith("\nA word of mine.\n")
    assert run.report() == 1


def test_the_laboratory_tries_a_scenario(tmp_path: Path) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page"
    page.write_text(f"{BEGIN}\n{END}\n")
    asked = ["--seeds", "2", "--scenario", "mixed-speed", "--policy", "SWARM", "--policy", "finish_time"]
    ended = subprocess.run(
        [ROOT / "scripts" / "lab", *asked, "--json", figures, "--page", page],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(json.loads(figures.read_text())) == 4
    assert "| finish_time |" in page.read_text()


def test_a_laboratory_fleet_runs_for_real() -> None:
    card = Card("quick", "quick", "cuda", 10 * GIB, 0.02, 70e9)
    models = [Model(f"checkpoints/{name}.safetensors", 7_000_000_000) for name in "ab"]
    jobs = tuple(
        Job(
            number=number, owner="ann", submit_ms=0, models=(models[number % 2],), pixels=256 * 256, steps=4,
            vram_bytes=0, work=units(256 * 256, 4),
        )
        for number in range(6)
    )  # fmt: skip
    found = run(Scenario(cards=(card, card), jobs=jobs), {"placement.policy": "finish_time"})
    assert sum(found.jobs.values()) == 6
    assert 2 <= found.loads <= 6
    assert found.makespan_s > 0
