"""Attempts of a real worker process on a simulator: what the broker is told, and what ComfyUI really did."""

from __future__ import annotations

from pathlib import Path

from broker.protocol.records import ProgressKind
from broker.protocol.worker import Accepted, Announce, Capabilities, Complete, ProgressReport
from comfyui.simulator.process import running_simulator
from tests.contract.worker.stage import BrokerStandIn, previews, running_worker, sdxl


def test_a_picture_from_dispatch_to_recorded(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(speed=4.0) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        announced = broker.first(Announce)
        assert announced.simulated and announced.worker == "w1" and announced.comfyui_version
        capabilities = broker.first(Capabilities)
        assert "KSampler" in capabilities.nodes
        assert "checkpoints/juggernautXL_v8Rundiffusion.safetensors" in capabilities.models
        assert capabilities.digest == announced.capabilities
        assert broker.store.has(capabilities.digest)
        key = broker.dispatch(sdxl("a lighthouse", steps=8))
        assert broker.first(Accepted, key).prompt_id
        end = broker.end(key)
        assert isinstance(end, Complete)
        (output,) = end.outputs
        assert (output.kind, output.media_type, output.node_id) == ("output", "image/png", "9")
        assert broker.stored(output.sha256).startswith(b"\x89PNG")
        reports = [report.progress for report in broker.all(ProgressReport, key)]
        assert reports[0].kind is ProgressKind.STARTED
        fractions = [report.fraction for report in reports]
        assert fractions == sorted(fractions) and fractions[-1] > 0.8
        assert previews(broker, key)
