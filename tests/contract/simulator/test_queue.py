"""The queue and the history, without a server."""

from typing import Any

import pytest

from comfyui.simulator.queue import MOST_REMEMBERED, Item, PromptQueue
from comfyui.simulator.versions import Release

STATUS: dict[str, Any] = {"status_str": "success", "completed": True, "messages": []}


def item(number: float, name: str, **extra_data: Any) -> Item:
    return (number, name, {}, extra_data, [])


def queue(version: str = "0.3.64") -> tuple[PromptQueue, list[int]]:
    """A queue, and what it told of itself: how many prompts were left at each change."""
    told: list[int] = []
    made = PromptQueue(Release(version), lambda: told.append(made.remaining()))
    return made, told


def run_one(prompts: PromptQueue) -> str:
    taken = prompts.take()
    assert taken is not None
    prompts.finish(STATUS, {}, {})
    return taken[1]


def test_the_smallest_number_runs_first_and_equal_ones_by_id() -> None:
    prompts, _ = queue()
    for number, name in [(3, "c"), (-7, "front"), (3, "b"), (2.5, "a")]:
        prompts.put(item(number, name))
    assert [run_one(prompts) for _ in range(4)] == ["front", "a", "b", "c"]
    assert prompts.take() is None


def test_every_change_is_told() -> None:
    prompts, told = queue()
    prompts.put(item(0, "a"))
    prompts.put(item(1, "b"))
    prompts.take()
    prompts.finish(STATUS, {}, {})
    prompts.delete("b")
    prompts.clear()
    assert told == [1, 2, 2, 1, 0, 0]


def test_the_same_id_and_number_fails_for_another_graph_and_is_in_the_queue_all_the_same() -> None:
    prompts, told = queue()
    prompts.put(item(7.0, "twin"))
    prompts.put(item(7.0, "twin"))
    with pytest.raises(TypeError):
        prompts.put((7.0, "twin", {"1": {}}, {}, []))
    assert prompts.remaining() == 3
    assert told == [1, 2]


def test_delete_takes_one_and_never_the_running_one() -> None:
    prompts, _ = queue()
    for number in range(3):
        prompts.put(item(number, "same"))
    prompts.take()
    assert prompts.delete("same")
    assert prompts.remaining() == 2
    assert not prompts.delete("unknown")
    assert prompts.is_running("same")


def test_history_windows() -> None:
    prompts, _ = queue()
    for number in range(5):
        prompts.put(item(number, f"p{number}"))
        run_one(prompts)
    assert list(prompts.history()) == ["p0", "p1", "p2", "p3", "p4"]
    assert list(prompts.history(max_items=2)) == ["p3", "p4"]
    assert list(prompts.history(max_items=9)) == ["p0", "p1", "p2", "p3", "p4"]
    assert list(prompts.history(max_items=2, offset=1)) == ["p1", "p2"]
    assert list(prompts.history(offset=3)) == ["p3", "p4"]
    assert prompts.history(max_items=0) == {}
    prompts.forget("p4")
    assert prompts.remembered("p4") == {}
    prompts.forget_all()
    assert prompts.history() == {}


def test_a_second_prompt_of_the_same_id_takes_the_first_ones_place() -> None:
    prompts, _ = queue()
    for number, name in enumerate(["a", "b", "a"]):
        prompts.put(item(number, name))
        run_one(prompts)
    assert list(prompts.history()) == ["a", "b"]
    assert prompts.remembered("a")["a"]["prompt"][0] == 2


def test_the_oldest_is_forgotten() -> None:
    prompts, _ = queue()
    for number in range(MOST_REMEMBERED + 2):
        prompts.put(item(number, f"p{number}"))
        run_one(prompts)
    kept = list(prompts.history())
    assert len(kept) == MOST_REMEMBERED
    assert kept[0] == "p2"


@pytest.mark.parametrize(
    ("version", "in_queue", "in_history"),
    [("0.3.34", True, True), ("0.3.64", True, False), ("0.45.2", False, False)],
)
def test_who_sees_a_key(version: str, in_queue: bool, in_history: bool) -> None:
    prompts, _ = queue(version)
    prompts.put(item(0, "p", api_key_comfy_org="SECRET", other="kept"))
    waiting = prompts.items()[1][0][3]
    run_one(prompts)
    remembered = prompts.remembered("p")["p"]["prompt"][3]
    assert ("api_key_comfy_org" in waiting) == in_queue
    assert ("api_key_comfy_org" in remembered) == in_history
    assert waiting["other"] == remembered["other"] == "kept"
