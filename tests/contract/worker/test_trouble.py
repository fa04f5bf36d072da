"""A real worker process in trouble: ComfyUI, the broker or the worker itself fails in the middle of an attempt.

What ComfyUI really ran is read from the simulator's own journal.
"""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path

import pytest

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Phase, Reason, Resume
from broker.protocol.worker import (
    Accepted,
    Announce,
    Complete,
    Drain,
    Draining,
    Fail,
    Heartbeat,
    Leave,
    ProgressReport,
    Ready,
    Refused,
)
from comfyui.simulator.process import running_simulator
from tests.contract.worker.stage import (
    LIMITS,
    PATIENCE_S,
    BrokerStandIn,
    WorkerProcess,
    finished,
    plain,
    running_worker,
    sdxl,
    started,
)

# ---- ComfyUI's socket


def test_a_socket_that_drops_in_mid_run(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(sdxl("x", steps=20, size=512))
        broker.first(ProgressReport, key)
        comfyui.mischief("drop")
        end = broker.end(key)
        assert isinstance(end, Complete) and end.outputs
        # Progress goes on after the reconnect.
        assert broker.all(ProgressReport, key)[-1].progress.fraction > 0.5


def test_a_socket_that_stays_open_and_says_nothing(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    settings = {"worker__history_poll": "5 s"}
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url, **settings):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("silent")
        key = broker.dispatch(sdxl("x", steps=2))
        broker.until(lambda: prompt_id_for(*key) in finished(log))
        done_s = time.monotonic()
        end = broker.end(key)
        assert isinstance(end, Complete) and end.outputs
        assert time.monotonic() - done_s < 10  # the promise; two polls


# ---- ComfyUI's process


def test_comfyui_is_killed_and_comes_back(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        running = broker.dispatch(sdxl("x", steps=200, size=1024))
        staged = broker.dispatch(sdxl("y"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)
        comfyui.kill()
        for key in (running, staged):
            end = broker.end(key)
            assert isinstance(end, Fail) and end.failure.reason is Reason.COMFY_LOST
        assert broker.next(Heartbeat).stats.comfy_alive is False
        assert broker.all(Ready)[-1].credits == 0
        comfyui.restart()
        assert isinstance(broker.end(broker.dispatch(plain(1))), Complete)


def test_comfyui_is_restarted_before_anybody_looks(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(sdxl("x", steps=200, size=1024))
        broker.first(ProgressReport, key)
        comfyui.kill()
        comfyui.restart()
        end = broker.end(key)
        assert isinstance(end, Fail) and end.failure.reason is Reason.COMFY_LOST


def test_comfyui_hangs(broker: BrokerStandIn, tmp_path: Path) -> None:
    """Heartbeats go on, the limit ends the attempt, and no more work is asked for."""
    limits = type(LIMITS)(start_to_close_ms=60_000, stall_ms=1_000)
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(sdxl("x", steps=200, size=1024), limits=limits)
        broker.first(ProgressReport, key)
        comfyui.signal(signal.SIGSTOP)
        end = broker.end(key)
        assert isinstance(end, Fail) and end.failure.reason is Reason.STALLED
        before = len(broker.all(Heartbeat))
        broker.until(lambda: len(broker.all(Heartbeat)) > before + 3)
        assert broker.all(Ready)[-1].credits == 0
        comfyui.signal(signal.SIGCONT)
        assert isinstance(broker.end(broker.dispatch(plain(2))), Complete)


def test_a_worker_waits_for_its_comfyui(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui:
        comfyui.kill()
        with running_worker(tmp_path, broker, comfyui.url) as worker:
            while "waiting for comfyui" not in worker.log.read_text():
                broker.until(lambda: True)
                time.sleep(0.02)
            assert not broker.heard
            comfyui.restart()
            assert isinstance(broker.end(broker.dispatch(plain(3))), Complete)


# ---- answers that are no answers


@pytest.mark.parametrize("kind", ["no-prompt-id", "drop-reply", "not-json", "http-500", "slow"])
def test_an_answer_to_the_prompt_that_is_none(broker: BrokerStandIn, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief(kind)
        key = broker.dispatch(sdxl("x", steps=2))
        assert isinstance(broker.end(key), Complete)
        assert started(log) == [prompt_id_for(*key)]


def test_an_output_that_comes_cut_is_fetched_again(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("cut")
        end = broker.end(broker.dispatch(plain(4)))
        assert isinstance(end, Complete)
        assert broker.stored(end.outputs[0].sha256).endswith(b"IEND\xaeB`\x82")


def test_an_output_that_was_saved_cut_is_lost(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("truncate")
        end = broker.end(broker.dispatch(plain(5)))
        assert isinstance(end, Fail) and end.failure.reason is Reason.OUTPUT_LOST
        # The same again is drawn anew, not taken from ComfyUI's cache.
        assert isinstance(broker.end(broker.dispatch(plain(5))), Complete)


def test_a_huge_output_holds_up_no_heartbeat(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("huge", bytes=100 << 20)
        key = broker.dispatch(plain(6))
        end = broker.end(key)
        assert isinstance(end, Complete) and end.outputs[0].size_bytes == 100 << 20
        gaps_s = [later - earlier for earlier, later in itertools.pairwise(broker.heartbeats_s)]
        assert max(gaps_s) < broker.lease_ms / 1_000


def test_an_output_over_the_limit_fails_the_attempt(broker: BrokerStandIn, tmp_path: Path) -> None:
    settings = {"files__max_file": "1 MiB"}
    with running_simulator(zero_work=True) as comfyui, running_worker(tmp_path, broker, comfyui.url, **settings):
        broker.until(lambda: broker.room() == 2)
        comfyui.mischief("huge", bytes=2 << 20)
        end = broker.end(broker.dispatch(plain(7)))
        assert isinstance(end, Fail) and end.failure.reason is Reason.OUTPUT_LOST


# ---- the worker itself


def resumes(*keys: tuple[str, int]) -> tuple[Resume, ...]:
    return tuple(
        Resume(job_id=key[0], attempt=key[1], prompt_id=prompt_id_for(*key), cancelling=False, limits=LIMITS)
        for key in keys
    )


def test_a_killed_worker_carries_on_with_the_prompts_in_comfyui(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("x", steps=40, size=512))
        staged = broker.dispatch(sdxl("y"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)
        worker.kill()
        broker.resume = resumes(running, staged)
        before = len(broker.all(ProgressReport, running))
        worker.start()
        assert isinstance(broker.end(running), Complete)
        assert isinstance(broker.end(staged), Complete)
        assert len(set(broker.speakers)) == 2
        assert len(broker.all(ProgressReport, running)) > before + 1
        serials = [report.serial for report in broker.all(ProgressReport, running)]
        assert serials == sorted(set(serials))
        assert started(log) == [prompt_id_for(*running), prompt_id_for(*staged)]


def test_a_killed_worker_finds_what_finished_without_it(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("x", steps=2))
        broker.first(Accepted, key)
        worker.kill()
        while prompt_id_for(*key) not in finished(log):
            time.sleep(0.02)
        never = "00000000-0000-4000-8000-000000000000", 3
        broker.resume = resumes(key, never)
        worker.start()
        end = broker.end(key)
        assert isinstance(end, Complete) and end.outputs
        lost = broker.end(never)
        assert isinstance(lost, Fail) and lost.failure.reason is Reason.WORKER_LOST
        assert started(log) == [prompt_id_for(*key)]


def test_prompts_of_an_earlier_life_that_nobody_wants_are_removed(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("x", steps=200, size=1024))
        staged = broker.dispatch(sdxl("y"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)
        worker.kill()
        worker.start()
        assert isinstance(broker.end(broker.dispatch(plain(8))), Complete)
        assert prompt_id_for(*staged) not in started(log)


def test_a_stopped_worker_goes_on_where_it_was(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("x", steps=20, size=512))
        broker.first(ProgressReport, key)
        worker.signal(signal.SIGSTOP)
        while prompt_id_for(*key) not in finished(log):
            time.sleep(0.02)
        worker.signal(signal.SIGCONT)
        assert isinstance(broker.end(key), Complete)
        assert started(log) == [prompt_id_for(*key)]


# ---- the broker


def test_a_new_broker_gets_what_is_held_and_the_end_that_was_not_recorded(tmp_path: Path) -> None:
    first = BrokerStandIn(tmp_path / "files")
    first.records = False
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, first, comfyui.url):
        try:
            ended = first.dispatch(plain(9))
            first.first(Complete, ended)
            running = first.dispatch(sdxl("x", steps=30, size=512))
            first.first(ProgressReport, running)
        finally:
            first.close()
        second = BrokerStandIn(tmp_path / "files", first.network)
        try:
            held = {(h.job_id, h.attempt): h.phase for h in second.first(Announce).held}
            assert held == {ended: Phase.ENDED, running: Phase.RUNNING}
            assert second.session == first.session
            assert isinstance(second.end(ended), Complete)
            assert second.first(Accepted, running)
            assert isinstance(second.end(running), Complete)
            assert started(log) == [prompt_id_for(*ended), prompt_id_for(*running)]
        finally:
            second.close()


def test_a_broker_that_falls_silent_is_dialled_anew_and_loses_nothing(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        key = broker.dispatch(sdxl("x", steps=2))
        broker.first(Accepted, key)
        broker.deaf = True
        broker.until(lambda: len(broker.all(Announce)) >= 2)
        broker.deaf = False
        broker.until(lambda: broker.room() > 0)
        assert isinstance(broker.end(key), Complete)
        assert isinstance(broker.end(broker.dispatch(plain(10))), Complete)


def test_a_broker_that_has_forgotten_the_session_is_announced_to(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url):
        broker.until(lambda: broker.room() > 0)
        broker.say(Refused(why="announce first", retry=True))
        broker.next(Announce)
        broker.next(Ready)
        assert isinstance(broker.end(broker.dispatch(plain(11))), Complete)


def test_a_worker_refused_for_good_says_why(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        broker.first(Ready)
        broker.say(Refused(why="this key belongs to somebody else", retry=False))
        assert worker.child.wait(PATIENCE_S) == 2
        assert "this key belongs to somebody else" in worker.log.read_text()
        assert "Traceback" not in worker.log.read_text()


# ---- leaving


def test_sigterm_hands_back_what_waits_and_finishes_what_runs(broker: BrokerStandIn, tmp_path: Path) -> None:
    log = tmp_path / "comfyui.jsonl"
    with running_simulator(log=log) as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("x", steps=30, size=512))
        staged = broker.dispatch(sdxl("y"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)
        worker.signal(signal.SIGTERM)
        back = broker.end(staged)
        assert isinstance(back, Fail) and back.failure.reason is Reason.DRAINING
        assert isinstance(broker.end(running), Complete)
        broker.first(Leave)
        assert broker.all(Draining)
        assert worker.child.wait(PATIENCE_S) == 0
        assert worker.said() == f"ready worker name=w1 comfyui={comfyui.url}\n"
        assert started(log) == [prompt_id_for(*running)]


def test_the_broker_drains_a_worker(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        broker.until(lambda: broker.room() > 0)
        broker.say(Drain())
        broker.first(Leave)
        assert worker.child.wait(PATIENCE_S) == 0


def test_a_second_sigterm_ends_it_at_once(broker: BrokerStandIn, tmp_path: Path) -> None:
    with running_simulator() as comfyui, running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("x", steps=200, size=1024))
        broker.first(ProgressReport, key)
        worker.signal(signal.SIGTERM)
        broker.first(Draining)
        worker.signal(signal.SIGTERM)
        assert worker.child.wait(PATIENCE_S) == -signal.SIGTERM


def test_a_wrong_address_of_comfyui_is_the_operators_mistake(broker: BrokerStandIn, tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, broker.network, "https://127.0.0.1:1/")
    worker.start()
    assert worker.child.wait(PATIENCE_S) == 2
    assert "[worker] comfyui" in worker.log.read_text()
    worker.stop()
