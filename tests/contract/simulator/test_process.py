"""A simulator as a process: flags, the ready line, its journal, its end, and what a restart keeps."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comfyui.simulator.journal import read_journal
from comfyui.simulator.process import SimulatorProcess, flags, running_simulator
from tests.contract.simulator.client import LONG, ask, eventually, flat, painting, post, run


def refused(*arguments: str) -> str:
    """What a simulator says that does not start."""
    command = [sys.executable, "-m", "comfyui.simulator", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_flags_are_made_of_options() -> None:
    options = {"zero_work": True, "card": "l4", "speed": 2.5, "log": None, "no_stall_fault": False}
    assert flags(options) == ["--zero-work", "--card", "l4", "--speed", "2.5"]
    assert flags({"mischief": [{"kind": "oom"}]}) == ["--mischief", '{"kind": "oom"}']


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--card", "voodoo"], "invalid choice: 'voodoo'"),
        (["--version", "9.9"], "invalid choice: '9.9'"),
        (["--models", "x.txt"], "model 'x.txt' is not [KIND/]NAME[=BYTES]"),
        (["--mischief", '{"kind": "explode"}'], "kind must be one of"),
        (["--mischief", "explode"], "simulator:"),
    ],
)
def test_bad_flags_are_explained(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_a_taken_port_is_explained() -> None:
    with running_simulator(zero_work=True) as simulator:
        assert "Address already in use" in refused("--port", str(simulator.port))


def test_the_journal_tells_what_was_done(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_simulator(speed=20, log=log) as simulator:
        done = run(simulator.url, flat())["prompt"][1]
        stopped, deleted = post(simulator.url, painting(steps=LONG)), post(simulator.url, flat(7))
        ask(f"{simulator.url}/queue", {"delete": [deleted]})
        ask(f"{simulator.url}/interrupt", {"prompt_id": stopped})
        eventually(lambda: ask(f"{simulator.url}/history/{stopped}").json, "the interrupt")
        simulator.mischief("oom")
        failed = run(simulator.url, painting(seed=2))["prompt"][1]
        refusal = ask(f"{simulator.url}/prompt", {"prompt": {}, "prompt_id": "refused"})
        assert refusal.status == 400
    entries = read_journal(log)
    story = [(entry["at"], entry["prompt_id"]) for entry in entries if "prompt_id" in entry]
    for expected in (
        [("received", done), ("started", done), ("finished", done)],
        [("received", stopped), ("started", stopped), ("interrupted", stopped)],
        [("received", deleted), ("deleted", deleted)],
        [("received", failed), ("started", failed), ("failed", failed)],
        [("refused", "refused")],
    ):
        assert [entry for entry in story if entry[1] == expected[0][1]] == expected
    assert [entry["mono_ms"] for entry in entries] == sorted(entry["mono_ms"] for entry in entries)
    assert all(entry["wall_ms"] > 1_700_000_000_000 for entry in entries)


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"at": "started"}\n{"at": "fini')
    assert read_journal(log) == [{"at": "started"}]


def test_a_restart_keeps_files_and_forgets_the_rest() -> None:
    with running_simulator(zero_work=True) as simulator:
        first = simulator.url
        run(simulator.url, flat(prefix="kept"))
        preview = flat()
        preview["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        run(simulator.url, preview)
        assert list((simulator.base / "temp").iterdir())
        simulator.kill()
        simulator.restart()
        assert simulator.url == first
        assert ask(f"{simulator.url}/history").json == {}
        assert not list((simulator.base / "temp").iterdir())
        entry = run(simulator.url, flat(prefix="kept"))
        assert entry["prompt"][0] == 0
        assert entry["outputs"]["2"]["images"][0]["filename"] == "kept_00002_.png"


@pytest.mark.parametrize(
    ("number", "busy", "status"),
    [(signal.SIGTERM, False, -15), (signal.SIGTERM, True, -15), (signal.SIGINT, False, 0), (signal.SIGINT, True, -6)],
)
def test_it_ends_as_the_real_one_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, busy: bool, status: int
) -> None:
    """Recorded: killed by SIGTERM, aborts at SIGINT in the middle of a prompt."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = SimulatorProcess(tmp_path / "unused", {"speed": 20, "base_directory": None})
    try:
        process.start()
        (folder,) = tmp_path.iterdir()
        if busy:
            post(process.url, painting(steps=LONG))
            eventually(lambda: ask(f"{process.url}/queue").json["queue_running"], "the prompt to run")
        process.signal(number)
        assert process.wait() == status
    finally:
        process.stop()
    assert not folder.exists()


def test_models_and_card_are_what_was_asked_for() -> None:
    models = "a.safetensors,loras/b.safetensors=1000,upscale_models/deep/4x-c.pth"
    with running_simulator(zero_work=True, models=models, card="l4", vram_bytes=10**10) as simulator:
        assert ask(f"{simulator.url}/models/checkpoints").json == ["a.safetensors"]
        assert ask(f"{simulator.url}/models/loras").json == ["b.safetensors"]
        assert ask(f"{simulator.url}/models/upscale_models").json == ["deep/4x-c.pth"]
        (facts,) = ask(f"{simulator.url}/experiment/models/loras").json
        assert facts["size"] == 1000
        (device,) = ask(f"{simulator.url}/system_stats").json["devices"]
        assert device["name"] == "cuda:0 NVIDIA L4 : cudaMallocAsync"
        assert device["vram_total"] == device["vram_free"] == 10**10


def test_a_loaded_model_takes_memory_until_it_is_freed() -> None:
    with running_simulator(zero_work=True) as simulator:

        def free_bytes() -> int:
            return int(ask(f"{simulator.url}/system_stats").json["devices"][0]["vram_free"])

        before = free_bytes()
        run(simulator.url, painting())
        assert free_bytes() == before - 7_105_348_560
        ask(f"{simulator.url}/free", {"unload_models": True})
        eventually(lambda: free_bytes() == before, "the model to be unloaded")
