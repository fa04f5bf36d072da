"""The simulator against recordings of real ComfyUI servers: the same requests must bring the same answers and events.

One simulator a version plays all scenarios in the order they were recorded in, because a recorded server had a past:
its prompt numbers, file counters, caches and histories come out right only with it. A test plays what is missing up to
its scenario and judges that one alone.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.simulator.recording import Comparable, Line, load
from tests.contract.simulator.replay import Replay

#: In the order they were recorded; "restart" is a new server process, and 11 was recorded the second time it was run.
FIRST = ["01", "02", "03", "04", "05", "06", "07", "08a", "08b", "08c", "09", "10"]
ORDER = {
    "0.3.64": [*FIRST, "12", "13", "14", "15", "restart", "11", "11", "16"],
    "0.3.34": [*FIRST, "restart", "12", "11", "11"],
}
#: Played for what comes after; the slow reader of 14 has a test of its own in test_faults.py.
UNJUDGED = ("restart", "14")
CASES = [(version, name) for version, order in ORDER.items() for name in dict.fromkeys(order) if name not in UNJUDGED]


def script(version: str, scenario: str) -> list[Line]:
    """What is played of a recording."""
    lines = load(version, scenario)
    if scenario == "14":  # only its prompt, up to its first steps: what its sockets heard was recorded as counts
        posted, answer = (line for line in lines[:4] if line.kind != "note")
        step = {"value": 1, "max": 300, "prompt_id": answer.payload["json"]["prompt_id"], "node": "3"}
        heard = Line(1.0, "recv", "B", "text", {"type": "progress", "data": step})
        socket = Line(0.0, "ws", "B", "open", {"url": "/ws"})
        return [socket, posted, answer, heard, Line(1.0, "ws", "B", "client_close", {})]
    if scenario == "15":  # when it begins, the prompt of 14 has been interrupted and has not noticed yet
        greeted = next(place for place, line in enumerate(lines) if line.kind == "http_response") + 1
        return lines[:greeted] + load(version, "14")[-2:] + lines[greeted:]
    if scenario == "16":  # its second half, a race for the history, was recorded without the requests
        race = next(place for place, line in enumerate(lines) if str(line.payload).startswith("race"))
        return lines[:race] + lines[-2:]
    return lines


class Stage:
    """One simulator and the scenarios it has played."""

    def __init__(self, version: str, server: SimulatorProcess) -> None:
        self._version = version
        self._server = server
        self._to_play = list(ORDER[version])
        self._ids: dict[str, str] = {}
        self._played: dict[str, Replay | AssertionError] = {}

    def play(self, scenario: str) -> Replay:
        while scenario in self._to_play:
            name = self._to_play.pop(0)
            if name == "restart":
                self._server.stop()
                self._server.restart()
                continue
            replay = Replay(self._server, self._ids, script(self._version, name))
            try:
                asyncio.run(replay.play())
                self._played[name] = replay
            except AssertionError as e:
                self._played[name] = e
        outcome = self._played[scenario]
        if isinstance(outcome, AssertionError):
            raise outcome
        return outcome


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    models = "tiny-sd15-random.safetensors=628389062,tiny-sd15-random-b.safetensors=628389062"
    with ExitStack() as stack:
        yield {
            version: Stage(
                version,
                stack.enter_context(running_simulator(version=version, card="cpu", speed=1, models=models)),
            )
            for version in ORDER
        }


@pytest.mark.parametrize(("version", "scenario"), CASES, ids=[f"{version}-{name}" for version, name in CASES])
def test_replays(stages: dict[str, Stage], version: str, scenario: str) -> None:
    replay = stages[version].play(scenario)
    recorded = script(version, scenario)
    for conn in {line.conn: None for line in recorded if line.kind == "open"}:
        greeting = next(line for line in recorded if line.conn == conn and line.kind == "text" and line.dir == "recv")
        replay.learn_greeting(conn, greeting.payload["data"]["sid"])
    heard = [replay.recorded(line) for line in replay.heard]
    wanted, got = Comparable(recorded), Comparable(recorded)
    for conn in {line.conn: None for line in recorded if line.kind == "open"}:
        assert got.socket(heard, conn) == wanted.socket(recorded, conn), f"what {conn} heard"
    answers = [line for line in recorded if line.kind == "http_response"]
    asked = [line for line in recorded if line.kind == "http_request"]
    assert len(replay.answers) == len(answers)
    for request, answer, real in zip(asked, answers, replay.answers, strict=True):
        mine = got.response(replay.recorded(real), answer)
        assert mine == wanted.response(answer, answer), (
            f"answer to {request.payload['method']} {request.payload['path']}"
        )
    lists = [line.payload for line in recorded if line.kind == "note" and "query" in line.payload]
    found = [replay.recorded(Line(0.0, "note", "-", "note", shown)).payload for shown in replay.lists]
    assert found == [shown for shown in lists if isinstance(shown, dict)]
