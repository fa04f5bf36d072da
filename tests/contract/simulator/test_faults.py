"""Every fault a simulator can be told to commit, seen from outside."""

import http.client
import json
import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websocket import WebSocketException, WebSocketTimeoutException, create_connection

from comfyui.simulator.executor import DIED
from comfyui.simulator.journal import read_journal
from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.simulator.client import (
    PATIENCE_S,
    ask,
    ends,
    eventually,
    files,
    flat,
    hear_until,
    listening,
    painting,
    post,
    run,
)

CUT_OFF = (OSError, http.client.HTTPException)


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatorProcess]:
    """For faults that pass."""
    with running_simulator(zero_work=True) as simulator:
        yield simulator


@pytest.fixture
def well(shared: SimulatorProcess) -> Iterator[SimulatorProcess]:
    """The shared one, which must work as before afterwards."""
    yield shared
    assert run(shared.url, flat(int(time.monotonic() * 1000) % 0xFFFFFF))["status"]["status_str"] == "success"
    assert ask(f"{shared.url}/simulator").json["mischief"] == []


@pytest.mark.parametrize("graph", [flat(), painting()], ids=["flat", "painting"])
@pytest.mark.parametrize(("at", "saved"), [("start", 0), ("mid", 0), ("saved", 1)])
def test_it_dies(tmp_path: Path, graph: dict[str, Any], at: str, saved: int) -> None:
    log = tmp_path / "log"
    with running_simulator(zero_work=True, log=log, mischief=[{"kind": "die", "at": at}]) as simulator:
        prompt_id = post(simulator.url, graph)
        assert simulator.wait() == DIED
        assert len(list((simulator.base / "output").glob("*.png"))) == saved
        simulator.restart()
        assert ask(f"{simulator.url}/history").json == {}
        died = next(entry for entry in read_journal(log) if entry["at"] == "died")
        assert (died["prompt_id"], died["moment"]) == (prompt_id, at)


def test_it_hangs_and_nothing_stops_it() -> None:
    with running_simulator(zero_work=True) as simulator:
        simulator.mischief("hang")
        prompt_id = post(simulator.url, painting())
        with listening(simulator.url, "other") as ear:
            ask(f"{simulator.url}/interrupt", {})
            post(simulator.url, flat())
            queue = ask(f"{simulator.url}/queue").json
            assert [item[1] for item in queue["queue_running"]] == [prompt_id]
            assert len(queue["queue_pending"]) == 1
            assert hear_until(ear, lambda message: True)[-1]["type"] == "status"
        assert ask(f"{simulator.url}/history").json == {}


def test_it_falls_silent(well: SimulatorProcess) -> None:
    with listening(well.url) as ear:
        well.mischief("silent", seconds=4.0)  # so long the test may take for what it does meanwhile
        eventually(lambda: ask(f"{well.url}/simulator").json["silent"], "silence")
        run(well.url, flat(100))
        ear.settimeout(0.1)
        with pytest.raises(WebSocketTimeoutException):
            ear.recv()
        ear.settimeout(PATIENCE_S)
        eventually(lambda: not ask(f"{well.url}/simulator").json["silent"], "the end of silence")
        prompt_id = post(well.url, flat(101))
        assert hear_until(ear, ends(prompt_id))


def test_it_drops_sockets_without_a_word(well: SimulatorProcess) -> None:
    with listening(well.url) as ear:
        well.mischief("drop")
        with pytest.raises((WebSocketException, OSError)):
            hear_until(ear, lambda message: False)
    with listening(well.url, "again") as ear:
        prompt_id = post(well.url, flat(102), client_id="again")
        assert hear_until(ear, ends(prompt_id))


def test_it_refuses_connections_for_a_while(well: SimulatorProcess) -> None:
    with listening(well.url) as ear:
        well.mischief("refuse", seconds=3.0)  # so long the test may take until it asks
        with pytest.raises((WebSocketException, OSError)):
            hear_until(ear, lambda message: False)
        with pytest.raises(OSError, match=r"refused|reset"):
            ask(f"{well.url}/prompt")

    def answers() -> bool:
        try:
            return ask(f"{well.url}/prompt").status == 200
        except OSError:
            return False

    eventually(answers, "connections to be taken again")


def test_it_runs_out_of_memory_once_and_unloads_its_models(well: SimulatorProcess) -> None:
    run(well.url, painting(seed=200))
    assert ask(f"{well.url}/simulator").json["resident"] != []
    well.mischief("oom")
    entry = run(well.url, painting("other words", seed=201))
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert data["exception_type"] == "torch.OutOfMemoryError"
    assert "This error means you ran out of memory on your GPU" in data["exception_message"]
    assert ask(f"{well.url}/simulator").json["resident"] == []
    assert run(well.url, painting("more words", seed=202))["status"]["status_str"] == "success"


def test_a_poisoned_card_fails_everything_until_a_restart() -> None:
    with running_simulator(zero_work=True) as simulator:
        simulator.mischief("cuda-poison")
        for graph in (painting(), painting(seed=2), flat()):
            data = run(simulator.url, graph)["status"]["messages"][-1][1]
            assert data["exception_message"].startswith("CUDA error: device-side assert triggered")
        simulator.kill()
        simulator.restart()
        assert run(simulator.url, painting(seed=2))["status"]["status_str"] == "success"


def test_a_route_answers_500_and_does_nothing(well: SimulatorProcess) -> None:
    well.mischief("http-500", route="/prompt")
    assert ask(f"{well.url}/history").status == 200
    before = ask(f"{well.url}/history").json
    answer = ask(f"{well.url}/api/prompt", {"prompt": flat(103)})
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n\nServer got itself in trouble")
    assert ask(f"{well.url}/history").json == before


def test_a_route_answers_late(well: SimulatorProcess) -> None:
    well.mischief("slow", route="/system_stats", seconds=0.3)
    started = time.monotonic()
    assert ask(f"{well.url}/system_stats").status == 200
    assert time.monotonic() - started >= 0.3


def test_a_prompt_is_queued_and_its_answer_lost(well: SimulatorProcess) -> None:
    well.mischief("drop-reply")
    with pytest.raises(CUT_OFF):
        ask(f"{well.url}/prompt", {"prompt": flat(104), "prompt_id": "lost"})
    eventually(lambda: ask(f"{well.url}/history/lost").json, "the prompt to run all the same")


def test_a_prompt_is_queued_and_answered_with_html(well: SimulatorProcess) -> None:
    well.mischief("not-json")
    answer = ask(f"{well.url}/prompt", {"prompt": flat(105), "prompt_id": "html"})
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        _ = answer.json
    eventually(lambda: ask(f"{well.url}/history/html").json, "the prompt to run all the same")


def test_a_prompt_is_queued_and_answered_without_its_id(well: SimulatorProcess) -> None:
    well.mischief("no-prompt-id")
    answer = ask(f"{well.url}/prompt", {"prompt": flat(106), "prompt_id": "nameless"})
    assert (answer.status, answer.json) == (200, {"node_errors": {}})
    eventually(lambda: ask(f"{well.url}/history/nameless").json, "the prompt to run all the same")


@pytest.mark.parametrize("route", ["/view", "/history"])
def test_an_answer_ends_in_the_middle(well: SimulatorProcess, route: str) -> None:
    (query,) = files(run(well.url, flat(107)))
    url = f"{well.url}/view?{query}" if route == "/view" else f"{well.url}/history"
    whole = ask(url).body
    well.mischief("cut", route=route)
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(url)
    assert cut.value.partial == whole[: len(whole) // 2]
    assert ask(url).body == whole


def test_a_saved_picture_is_cut_or_blown_up(well: SimulatorProcess) -> None:
    well.mischief("truncate")
    (query,) = files(run(well.url, flat(108)))
    with pytest.raises(OSError, match=r"truncated|Truncated|broken"):
        Image.open(BytesIO(ask(f"{well.url}/view?{query}").body)).load()
    well.mischief("huge", bytes=3_000_000)
    (query,) = files(run(well.url, flat(109)))
    assert len(ask(f"{well.url}/view?{query}").body) == 3_000_000


def test_the_history_comes_late(well: SimulatorProcess) -> None:
    well.mischief("late-history", seconds=0.3)
    with listening(well.url) as ear:
        prompt_id = post(well.url, flat(110))
        hear_until(ear, lambda message: message["type"] == "execution_success")
        assert ask(f"{well.url}/history/{prompt_id}").json == {}
        hear_until(ear, ends(prompt_id))
        assert prompt_id in ask(f"{well.url}/history/{prompt_id}").json


def test_faults_can_be_lifted_and_bad_orders_are_refused(well: SimulatorProcess) -> None:
    well.mischief("oom", times=None)
    assert ask(f"{well.url}/simulator").json["mischief"] == [{"kind": "oom", "times": None}]
    assert ask(f"{well.url}/simulator/mischief", method="DELETE").status == 200
    answer = ask(f"{well.url}/simulator/mischief", {"kind": "explode"})
    assert answer.status == 400
    assert "kind must be one of die" in answer.json["error"]


@pytest.mark.parametrize("mended", [False, True])
def test_a_client_id_taken_over_ends_up_deaf(mended: bool) -> None:
    with running_simulator(zero_work=True, no_overlap_fault=mended) as simulator:
        first = create_connection(f"{simulator.url.replace('http', 'ws')}/ws?clientId=ear", timeout=PATIENCE_S)
        with listening(simulator.url) as second:
            first.close(timeout=5)
            prompt_id = post(simulator.url, flat())
            eventually(lambda: ask(f"{simulator.url}/history/{prompt_id}").json, "the prompt to end")
            if mended:
                assert hear_until(second, ends(prompt_id))
            else:
                second.settimeout(0.2)
                with pytest.raises(WebSocketTimeoutException):
                    second.recv()


@pytest.mark.parametrize("mended", [False, True])
def test_a_reader_that_never_reads_holds_up_everybody(mended: bool) -> None:
    """As recorded in 14: previews of a prompt without owner go to all; HTTP goes on; all arrives when it is gone."""
    small = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 2048),)  # so that its buffer is soon full
    with running_simulator(card="cpu", speed=600, no_stall_fault=mended) as simulator:
        slow = create_connection(
            f"{simulator.url.replace('http', 'ws')}/ws?clientId=slow", timeout=PATIENCE_S, sockopt=small
        )
        with listening(simulator.url, "healthy") as healthy:
            graph = painting(steps=120, side=512)
            answer = ask(f"{simulator.url}/prompt", {"prompt": graph})
            prompt_id = answer.json["prompt_id"]
            if not mended:
                healthy.settimeout(2.0)
            heard: list[dict[str, Any]] = []
            stalled = False
            while not stalled and not (heard and heard[-1].get("data", {}) == end_of_queue()):
                try:
                    heard += hear_until(healthy, lambda message: message["type"] in ("progress", "status"))
                except WebSocketTimeoutException:
                    stalled = True
            assert stalled != mended
            assert ask(f"{simulator.url}/prompt").status == 200
            slow.shutdown()  # type: ignore[no-untyped-call]  # no close handshake: it reads nothing, not even that
            healthy.settimeout(PATIENCE_S)
            if stalled:
                heard += hear_until(healthy, lambda message: message.get("data", {}) == end_of_queue())
            assert ask(f"{simulator.url}/history/{prompt_id}").json != {}


def end_of_queue() -> dict[str, Any]:
    return {"status": {"exec_info": {"queue_remaining": 0}}}


def test_a_stopped_process_goes_on_where_it_was() -> None:
    with running_simulator(speed=20) as simulator:
        prompt_id = post(simulator.url, painting(steps=10))
        simulator.signal(signal.SIGSTOP)
        host = urllib.parse.urlsplit(simulator.url).netloc
        connection = http.client.HTTPConnection(host, timeout=0.3)
        with pytest.raises(TimeoutError):
            connection.request("GET", "/prompt")
            connection.getresponse()
        connection.close()
        simulator.signal(signal.SIGCONT)
        eventually(lambda: ask(f"{simulator.url}/history/{prompt_id}").json, "the prompt to end")
