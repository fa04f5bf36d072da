"""A real worker process that is probed, and starts its ComfyUI anew with the operator's command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from broker.protocol.records import Reason
from broker.protocol.worker import Announce, Complete, Fail, Heartbeat, Probe, Probed, Restart
from tests.contract.worker.stage import BrokerStandIn, SimulatedComfyUI, plain, running_worker, sdxl


def restart_command(folder: Path, comfyui: SimulatedComfyUI) -> str:
    """A command as an operator would write one: it ends ComfyUI; who starts it again is a supervisor's business."""
    order = folder / "restart.py"
    pid_file = folder / "comfyui.pid"
    pid_file.write_text(str(comfyui.process.pid))
    order.write_text(f"import os, signal\nos.kill(int(open({str(pid_file)!r}).read()), signal.SIGKILL)\n")
    return f"{sys.executable} {order}"


def test_a_probe_passes_while_comfyui_works(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    for serial in (1, 2):
        at_work.say(Probe(serial=serial))
        assert at_work.next(Probed) == Probed(serial=serial, passed=True, why="")
    assert len(comfyui.finished()) == 2 and not at_work.all(Complete)


def test_a_frozen_comfyui_is_not_called_alive_and_gets_no_work(
    at_work: BrokerStandIn, comfyui: SimulatedComfyUI
) -> None:
    at_work.until(lambda: at_work.room() > 0)
    comfyui.process.signal(signal.SIGSTOP)
    try:
        at_work.until(lambda: at_work.all(Heartbeat)[-1].stats.comfy_fault != "", within_s=60)
        at_work.until(lambda: at_work.room() == 0)
        at_work.say(Probe(serial=1))
        assert not at_work.next(Probed, within_s=120).passed
    finally:
        comfyui.process.signal(signal.SIGCONT)
    at_work.until(lambda: not at_work.all(Heartbeat)[-1].stats.comfy_fault)
    assert isinstance(at_work.end(at_work.dispatch(plain(77))), Complete)


def test_a_card_that_fails_everything_is_mended_by_the_command(
    tmp_path: Path, broker: BrokerStandIn, comfyui: SimulatedComfyUI
) -> None:
    command = restart_command(tmp_path, comfyui)
    with running_worker(tmp_path, broker, comfyui.url, worker__restart=command, worker__restart_after="10 s"):
        assert broker.first(Announce).restartable
        comfyui.mischief("cuda-poison")
        end = broker.end(broker.dispatch(sdxl("poisoned")))
        assert isinstance(end, Fail) and end.failure.reason is Reason.POISONED
        comfyui.process.wait()
        broker.until(lambda: broker.all(Heartbeat)[-1].stats.comfy_fault != "")
        comfyui.process.restart()
        broker.until(lambda: broker.room() > 0)
        broker.say(Probe(serial=1))
        assert broker.next(Probed).passed
        assert isinstance(broker.end(broker.dispatch(plain(78))), Complete)


def test_a_restart_under_way_is_not_begun_again(
    tmp_path: Path, broker: BrokerStandIn, comfyui: SimulatedComfyUI
) -> None:
    """However often an admin asks."""
    begun = tmp_path / "begun"
    begun.touch()
    order = tmp_path / "restart.py"
    order.write_text(f"import time\nopen({str(begun)!r}, 'a').write('x')\ntime.sleep(60)\n")
    with running_worker(tmp_path, broker, comfyui.url, worker__restart=f"{sys.executable} {order}"):
        broker.until(lambda: broker.room() > 0)
        broker.say(Restart(why="asked"))
        broker.until(lambda: begun.read_text() == "x", within_s=60)
        broker.say(Restart(why="asked again"))
        broker.say(Probe(serial=1))
        broker.next(Probed, within_s=60)
        assert begun.read_text() == "x"
