"""A real worker process whose ComfyUI is in trouble: its socket, its process, its answers, its files.

What ComfyUI really ran is read from the simulator's own journal.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Limits, Reason
from broker.protocol.worker import (
    Accepted,
    Announce,
    Capabilities,
    Complete,
    Fail,
    Heartbeat,
    ProgressReport,
    Ready,
)
from comfyui.client import ComfyClient
from tests.contract.comfyui.hostile import USUAL, Answer, Hostile, answer, http, stay
from tests.contract.worker.stage import BrokerStandIn, SimulatedComfyUI, plain, running_worker, sdxl
from tests.core.worker.world import machine
from worker.comfy import REMIND_MS, RETRY_MAX_MS, Comfy
from worker.gpu import Gauge

# ---- its socket


def test_a_socket_that_drops_in_mid_run(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    key = at_work.dispatch(sdxl("dropped", steps=60, size=512))
    at_work.first(ProgressReport, key)
    comfyui.mischief("drop")
    end = at_work.end(key)
    assert isinstance(end, Complete) and end.outputs
    # Progress goes on after the reconnect.
    assert at_work.all(ProgressReport, key)[-1].progress.fraction > 0.5


def test_a_socket_that_stays_open_and_says_nothing(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    comfyui.mischief("silent")
    key = at_work.dispatch(sdxl("silence", steps=2))
    at_work.until(lambda: prompt_id_for(*key) in comfyui.finished())
    done_s = time.monotonic()
    end = at_work.end(key)
    assert isinstance(end, Complete) and end.outputs
    assert time.monotonic() - done_s < 10  # what is promised: two polls of five seconds; here they are of one


# ---- its process


def test_comfyui_is_killed_and_comes_back(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    running = at_work.dispatch(sdxl("killed", steps=1_000, size=1024))
    staged = at_work.dispatch(sdxl("killed too"))
    at_work.first(ProgressReport, running)
    at_work.first(Accepted, staged)
    comfyui.process.kill()
    try:
        for key in (running, staged):
            end = at_work.end(key)
            assert isinstance(end, Fail) and end.failure.reason is Reason.COMFY_LOST
        at_work.until(lambda: comfyui.url in at_work.all(Heartbeat)[-1].stats.comfy_fault)
        at_work.until(lambda: at_work.all(Ready)[-1].credits == 0)
    finally:
        comfyui.process.restart()
    assert isinstance(at_work.end(at_work.dispatch(plain(101))), Complete)


def test_comfyui_is_restarted_before_anybody_looks(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    key = at_work.dispatch(sdxl("restarted", steps=1_000, size=1024))
    at_work.first(ProgressReport, key)
    comfyui.process.kill()
    comfyui.process.restart()
    end = at_work.end(key)
    assert isinstance(end, Fail) and end.failure.reason is Reason.COMFY_LOST


def test_comfyui_hangs(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    """Heartbeats go on, the limit ends the attempt, and no more work is asked for."""
    limits = Limits(start_to_close_ms=60_000, stall_ms=500, hung_ms=0)
    key = at_work.dispatch(sdxl("hangs", steps=1_000, size=1024), limits=limits)
    at_work.first(ProgressReport, key)
    comfyui.process.signal(signal.SIGSTOP)
    end = at_work.end(key)
    assert isinstance(end, Fail) and end.failure.reason is Reason.STALLED
    at_work.until(lambda: at_work.all(Ready)[-1].credits == 0)
    assert max(at_work.silences_s) < at_work.lease_ms / 1_000
    comfyui.process.signal(signal.SIGCONT)
    assert isinstance(at_work.end(at_work.dispatch(plain(102))), Complete)


def test_a_worker_waits_for_its_comfyui(broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path) -> None:
    comfyui.process.kill()
    try:
        with running_worker(tmp_path, broker, comfyui.url) as worker:
            alone = broker.first(Announce)
            assert (alone.worker, alone.capabilities, alone.gpu.name) == ("w1", None, "")
            broker.until(lambda: len(broker.all(Heartbeat)) > 1)
            fault = broker.all(Heartbeat)[-1].stats.comfy_fault
            assert comfyui.url in fault and "set [worker] comfyui (--comfyui)" in fault
            assert "waiting for comfyui: this worker is ready once it answers" in worker.log.read_text()
            assert worker.child.stdout is not None
            assert not select.select([worker.child.stdout], [], [], 0)[0], "it does not serve, so it is not ready"
            assert not broker.all(Capabilities) and broker.room() == 0
            comfyui.process.restart()
            assert isinstance(broker.end(broker.dispatch(plain(103))), Complete)
            whole = broker.all(Announce)[-1]
            assert whole.capabilities is not None and whole.gpu.name and whole.session == alone.session
            assert worker.child.stdout.readline().startswith("ready worker name=w1")
    finally:
        comfyui.process.stop()
        comfyui.process.restart()


def test_the_log_says_again_and_again_that_comfyui_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = ComfyClient(f"http://127.0.0.1:{taken.getsockname()[1]}", client_id="c")
        elapsed_ms = 0
        comfy = Comfy(client, machine(), Gauge(), now_ms=lambda: elapsed_ms, act=lambda _asks: None)
        for wait_ms in comfy.watch():
            elapsed_ms += wait_ms
            if elapsed_ms > 3 * (REMIND_MS + RETRY_MAX_MS):
                break
    said = [record.message for record in caplog.records if "waiting for comfyui" in record.message]
    assert len(said) == 1 + 3


def test_a_comfyui_that_could_not_say_what_it_has_is_asked_again_at_once() -> None:
    said = [http(status="500 Internal Server Error"), answer({})]
    routes: dict[str, Answer] = {
        **USUAL,
        "/ws": stay,
        "/object_info": lambda connection: connection.sendall(said.pop(0)),
        "/simulator": http(status="404 Not Found"),
    }
    with Hostile(routes) as server, closing(ComfyClient(server.url, client_id="c")) as client:
        booted_ms = now_ms = 30_000  # the clock begins when the machine does, and both were started together
        comfy = Comfy(client, machine(), Gauge(), now_ms=lambda: now_ms, act=lambda _asks: None)
        watch = comfy.watch()
        while comfy.capabilities is None:
            now_ms += next(watch)
            assert now_ms - booted_ms < REMIND_MS


# ---- its answers


@pytest.mark.parametrize("kind", ["no-prompt-id", "drop-reply", "not-json", "http-500", "slow"])
def test_an_answer_to_the_prompt_that_is_none(at_work: BrokerStandIn, comfyui: SimulatedComfyUI, kind: str) -> None:
    comfyui.mischief(kind)
    key = at_work.dispatch(sdxl(kind, steps=2))
    assert isinstance(at_work.end(key), Complete)
    assert comfyui.started() == [prompt_id_for(*key)]


# ---- its files


def test_an_output_that_comes_cut_is_fetched_again(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    comfyui.mischief("cut")
    end = at_work.end(at_work.dispatch(plain(104)))
    assert isinstance(end, Complete)
    assert at_work.stored(end.outputs[0].sha256).endswith(b"IEND\xaeB`\x82")


def test_an_output_that_was_saved_cut_is_lost(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    comfyui.mischief("truncate")
    end = at_work.end(at_work.dispatch(plain(105)))
    assert isinstance(end, Fail) and end.failure.reason is Reason.OUTPUT_LOST
    # The same again is drawn anew, not taken from ComfyUI's cache.
    assert isinstance(at_work.end(at_work.dispatch(plain(105))), Complete)


def test_a_huge_output_holds_up_no_heartbeat(at_work: BrokerStandIn, comfyui: SimulatedComfyUI) -> None:
    comfyui.mischief("huge", bytes=100 << 20)
    end = at_work.end(at_work.dispatch(plain(106)))
    assert isinstance(end, Complete) and end.outputs[0].size_bytes == 100 << 20
    assert max(at_work.silences_s) < at_work.lease_ms / 1_000


def test_an_output_over_the_limit_fails_the_attempt(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url, files__max_file="1 MiB"):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("huge", bytes=2 << 20)
        end = broker.end(broker.dispatch(plain(107)))
        assert isinstance(end, Fail) and end.failure.reason is Reason.OUTPUT_LOST
