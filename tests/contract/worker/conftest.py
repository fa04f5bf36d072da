"""A broker's stand-in for each test, and one simulated ComfyUI for all of them, in order again before each."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyui.simulator.process import running_simulator
from tests.contract.worker.stage import BrokerStandIn, SimulatedComfyUI, running_worker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerStandIn]:
    stand_in = BrokerStandIn(tmp_path / "files")
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="package")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedComfyUI]:
    log = tmp_path_factory.mktemp("comfyui") / "journal.jsonl"
    with running_simulator(log=log, speed=3.0) as process:
        yield SimulatedComfyUI(process, log)


@pytest.fixture
def comfyui(simulated: SimulatedComfyUI) -> Iterator[SimulatedComfyUI]:
    """A test that kills it starts it again."""
    simulated.begin()
    yield simulated
    simulated.process.signal(signal.SIGCONT)
    simulated.lift()


@pytest.fixture
def at_work(broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path) -> Iterator[BrokerStandIn]:
    """The broker's stand-in with one worker that has asked for work."""
    with running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        yield broker
