"""The comparison with recordings must notice what matters, and nothing else."""

import copy
from typing import Any

import pytest

from tests.contract.simulator.recording import Comparable, Line, load

LINES = load("0.3.64", "01")


def socket_texts(lines: list[Line]) -> list[str]:
    return Comparable(LINES).socket(lines, "A")


def changed(place: int, **new: Any) -> list[Line]:
    """The recording with one line's payload changed at the top level."""
    lines = copy.deepcopy(LINES)
    lines[place].payload.update(new)
    return lines


def first(kind: str) -> int:
    return next(place for place, line in enumerate(LINES) if line.kind == "text" and line.payload.get("type") == kind)


def test_a_recording_equals_itself() -> None:
    assert socket_texts(copy.deepcopy(LINES)) == socket_texts(LINES)


def test_a_missing_message_is_noticed() -> None:
    place = first("executed")
    assert socket_texts(LINES[:place] + LINES[place + 1 :]) != socket_texts(LINES)


def test_a_swapped_order_is_noticed() -> None:
    place = first("execution_cached")
    swapped = [*LINES[:place], LINES[place + 1], LINES[place], *LINES[place + 2 :]]
    assert socket_texts(swapped) != socket_texts(LINES)


@pytest.mark.parametrize("kind", ["status", "executing", "executed", "progress", "progress_state", "execution_start"])
def test_a_message_of_another_type_is_noticed(kind: str) -> None:
    assert socket_texts(changed(first(kind), type="other")) != socket_texts(LINES)


def test_an_added_field_is_noticed() -> None:
    place = first("executing")
    assert socket_texts(changed(place, data=LINES[place].payload["data"] | {"new": 1})) != socket_texts(LINES)


def test_an_int_for_a_float_is_noticed() -> None:
    place = first("progress_state")
    data = copy.deepcopy(LINES[place].payload["data"])
    data["nodes"]["4"]["value"] = 0
    assert socket_texts(changed(place, data=data)) != socket_texts(LINES)


def test_another_moment_is_not_noticed() -> None:
    place = first("execution_start")
    assert socket_texts(changed(place, data=LINES[place].payload["data"] | {"timestamp": 5})) == socket_texts(LINES)


def test_another_length_of_a_preview_is_not_noticed_but_another_form_is() -> None:
    place = next(place for place, line in enumerate(LINES) if line.kind == "binary")
    assert socket_texts(changed(place, len=5, image_len=4)) == socket_texts(LINES)
    assert socket_texts(changed(place, type=1)) != socket_texts(LINES)


@pytest.mark.parametrize(
    "new",
    [
        {"status": 201},
        {"json": {"prompt_id": "x", "number": 0, "node_errors": {}}},
        {"headers": {"Content-Type": "text/html", "Content-Length": "85"}},
        {"headers": {"Content-Type": "application/json; charset=utf-8"}},
    ],
    ids=["status", "body", "type", "no length"],
)
def test_another_answer_is_noticed(new: dict[str, Any]) -> None:
    line = next(line for line in LINES if line.kind == "http_response")
    other = Line(line.t, line.dir, line.conn, line.kind, line.payload | new)
    assert Comparable(LINES).response(other, line) != Comparable(LINES).response(line, line)


def test_steps_of_an_interrupted_sampler_count_as_shapes_and_must_rise() -> None:
    lines = load("0.3.64", "05")
    steps = [place for place, line in enumerate(lines) if line.kind == "text" and line.payload["type"] == "progress"]
    fewer = [line for place, line in enumerate(lines) if place not in (steps[1], steps[1] - 1, steps[1] - 2)]
    assert Comparable(lines).socket(fewer, "A") == Comparable(lines).socket(lines, "A")
    falling = copy.deepcopy(lines)
    falling[steps[1]].payload["data"]["value"] = 1
    with pytest.raises(AssertionError, match="do not rise"):
        Comparable(lines).socket(falling, "A")


def test_a_step_may_overtake_the_answer_to_a_negotiation_and_nothing_else() -> None:
    lines = load("0.3.64", "08a")

    def heard(lines: list[Line]) -> list[str]:
        return Comparable(lines).socket(lines, "A2")

    mine = [place for place, line in enumerate(lines) if line.conn == "A2" and line.dir == "recv"]
    executing, negotiated, step = mine[1], mine[2], next(p for p in mine if lines[p].payload.get("type") == "progress")
    overtaken = [*lines[:negotiated], *lines[negotiated + 1 : step + 1], lines[negotiated], *lines[step + 1 :]]
    assert heard(overtaken) == heard(lines)
    early = [*lines[:executing], lines[step], *lines[executing:step], *lines[step + 1 :]]
    assert heard(early) != heard(lines)
    unanswered = lines[:negotiated] + lines[negotiated + 1 :]
    assert heard(unanswered) != heard(lines)
