"""A real worker process and its own life: it is killed, stopped, refused, drained; and brokers come and go.

What ComfyUI really ran is read from the simulator's own journal: nothing may run twice.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Phase, Reason, Resume
from broker.protocol.worker import (
    Accepted,
    Announce,
    Complete,
    Drain,
    Draining,
    Fail,
    Leave,
    ProgressReport,
    Ready,
    Refused,
)
from broker.runtime import keys
from broker.runtime.config import load
from tests.contract.worker.stage import (
    LIMITS,
    PATIENCE_S,
    BrokerStandIn,
    SimulatedComfyUI,
    WorkerProcess,
    plain,
    running_worker,
    sdxl,
)

NEVER = "00000000-0000-4000-8000-000000000000", 3


def resumes(*keys: tuple[str, int]) -> tuple[Resume, ...]:
    return tuple(
        Resume(job_id=key[0], attempt=key[1], prompt_id=prompt_id_for(*key), cancelling=False, limits=LIMITS)
        for key in keys
    )


# ---- the worker


def test_a_killed_worker_carries_on_with_the_prompts_in_comfyui(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("carried on", steps=300, size=512))
        staged = broker.dispatch(sdxl("carried on too"))
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
        assert comfyui.started() == [prompt_id_for(*running), prompt_id_for(*staged)]


def test_a_killed_worker_finds_what_finished_without_it(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("finished alone", steps=2))
        broker.first(Accepted, key)
        worker.kill()
        broker.until(lambda: prompt_id_for(*key) in comfyui.finished())
        broker.resume = resumes(key, NEVER)
        worker.start()
        end = broker.end(key)
        assert isinstance(end, Complete) and end.outputs
        lost = broker.end(NEVER)
        assert isinstance(lost, Fail) and lost.failure.reason is Reason.WORKER_LOST
        assert comfyui.started() == [prompt_id_for(*key)]


def test_prompts_of_an_earlier_life_that_nobody_wants_are_removed(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("unwanted", steps=1_000, size=1024))
        staged = broker.dispatch(sdxl("unwanted too"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)
        worker.kill()
        worker.start()
        broker.until(lambda: len(set(broker.speakers)) == 2)
        broker.next(Ready)
        assert isinstance(broker.end(broker.dispatch(plain(201))), Complete)
        assert prompt_id_for(*running) not in comfyui.finished()
        assert prompt_id_for(*staged) not in comfyui.started()


def test_a_stopped_worker_goes_on_where_it_was(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("stopped", steps=20, size=512))
        broker.first(ProgressReport, key)
        worker.signal(signal.SIGSTOP)
        broker.until(lambda: prompt_id_for(*key) in comfyui.finished())
        worker.signal(signal.SIGCONT)
        assert isinstance(broker.end(key), Complete)
        assert comfyui.started() == [prompt_id_for(*key)]


# ---- the broker


def test_a_new_broker_gets_what_is_held_and_the_end_that_was_not_recorded(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url):
        broker.records = False
        ended = broker.dispatch(plain(202))
        broker.first(Complete, ended)
        running = broker.dispatch(sdxl("new broker", steps=500, size=512))
        broker.first(ProgressReport, running)
        session = broker.session
        broker.restart()
        held = {(h.job_id, h.attempt): h.phase for h in broker.first(Announce).held}
        assert held == {ended: Phase.ENDED, running: Phase.RUNNING}
        assert broker.session == session
        assert isinstance(broker.end(ended), Complete)
        assert broker.first(Accepted, running)
        assert isinstance(broker.end(running), Complete)
        assert comfyui.started() == [prompt_id_for(*ended), prompt_id_for(*running)]


def test_what_runs_goes_on_without_a_broker_and_its_result_is_kept(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("no broker", steps=60, size=512))
        staged = broker.dispatch(sdxl("no broker either"))
        broker.first(ProgressReport, running)
        broker.first(Accepted, staged)

        def until_all_is_done_and_the_lease_is_over() -> None:
            deadline_s = time.monotonic() + PATIENCE_S
            while len(comfyui.finished()) < 2 or "dialling anew" not in worker.log.read_text():
                assert time.monotonic() < deadline_s
                time.sleep(0.02)

        broker.restart(until_all_is_done_and_the_lease_is_over)
        assert isinstance(broker.end(running), Complete)
        assert isinstance(broker.end(staged), Complete)
        assert comfyui.started() == [prompt_id_for(*running), prompt_id_for(*staged)]
        assert "the broker does not answer: dialling anew" in worker.log.read_text(), "no key is asked for"


def test_where_keys_are_asked_for_a_silent_broker_may_have_refused_one(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[security]\ncurve = yes\n")
    folder = load(path, environ={}).security.keys
    keys.make_broker(folder)
    keys.make_peer(load(path, environ={}), "worker", "w1", None)
    with running_worker(tmp_path, broker, comfyui.url, security__curve="yes", security__keys=str(folder)) as worker:
        said = "does not answer, or refuses this worker's key (scripts/keys list on its host tells): dialling anew"
        broker.until(lambda: said in worker.log.read_text())
    assert not broker.heard, "it has no key, and the worker wants one"


def test_a_broker_that_falls_silent_is_dialled_anew_and_loses_nothing(at_work: BrokerStandIn) -> None:
    key = at_work.dispatch(sdxl("silent broker", steps=2))
    at_work.first(Accepted, key)
    at_work.deaf = True
    at_work.until(lambda: len(at_work.all(Announce)) >= 2)
    at_work.deaf = False
    assert isinstance(at_work.end(key), Complete)
    at_work.next(Ready)
    assert isinstance(at_work.end(at_work.dispatch(plain(203))), Complete)


def test_a_broker_that_has_forgotten_the_session_is_announced_to(at_work: BrokerStandIn) -> None:
    at_work.say(Refused(why="announce first", retry=True))
    at_work.next(Announce)
    at_work.next(Ready)
    assert isinstance(at_work.end(at_work.dispatch(plain(204))), Complete)


def test_a_worker_refused_for_good_says_why(broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        broker.first(Ready)
        broker.say(Refused(why="this key belongs to somebody else", retry=False))
        assert worker.child.wait(PATIENCE_S) == 2
        assert "this key belongs to somebody else" in worker.log.read_text()
        assert "Traceback" not in worker.log.read_text()


# ---- leaving


def test_sigterm_hands_back_what_waits_and_finishes_what_runs(
    broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path
) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        running = broker.dispatch(sdxl("last", steps=200, size=512))
        staged = broker.dispatch(sdxl("handed back"))
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
        assert comfyui.started() == [prompt_id_for(*running)]


def test_the_broker_drains_a_worker(broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        broker.until(lambda: broker.room() > 0)
        broker.say(Drain())
        broker.first(Leave)
        assert worker.child.wait(PATIENCE_S) == 0


def test_a_second_sigterm_ends_it_at_once(broker: BrokerStandIn, comfyui: SimulatedComfyUI, tmp_path: Path) -> None:
    with running_worker(tmp_path, broker, comfyui.url) as worker:
        key = broker.dispatch(sdxl("endless", steps=1_000, size=1024))
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
