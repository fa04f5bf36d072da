"""The order nodes run in, and what makes two of them the same for the cache."""

import copy
import random
from typing import Any

from comfyui.simulator.graph import Order, signatures
from tests.contract.simulator.client import flat, painting


def never(node_id: str) -> bool:
    return False


def test_the_order_is_the_recorded_one() -> None:
    """Outputs and what feeds them come first, not the smallest id: recorded with ComfyUI 0.3.64 and 0.3.34."""
    graph = painting()
    recorded = {name: graph[name] for name in ("4", "5", "6", "7", "3", "8", "9")}
    assert list(Order(recorded, ["9"], never)) == ["4", "5", "7", "6", "3", "8", "9"]


def test_an_output_goes_before_a_longer_way() -> None:
    graph = flat() | {
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert list(Order(graph, ["4", "7"], never)) == ["1", "7", "3", "4"]


def test_cached_nodes_and_what_only_they_need_are_left_out() -> None:
    assert list(Order(painting(), ["9"], lambda node: node in "4567")) == ["3", "8", "9"]


def test_every_node_comes_after_what_it_needs() -> None:
    chance = random.Random(7)
    for _ in range(50):
        names = [str(n) for n in range(12)]
        graph: dict[str, Any] = {}
        for place, name in enumerate(names):
            needed = chance.sample(names[:place], min(place, chance.randint(0, 3)))
            graph[name] = {"class_type": "X", "inputs": {f"i{n}": [source, 0] for n, source in enumerate(needed)}}
        done: list[str] = []
        for node in Order(graph, names[-3:], never):
            assert all(value[0] in done for value in graph[node]["inputs"].values())
            done.append(node)
        assert set(names[-3:]) <= set(done)
        assert len(done) == len(set(done))


def same(graph: dict[str, Any], other: dict[str, Any], node: str = "9") -> bool:
    return signatures(graph, lambda node: "")[node] == signatures(other, lambda node: "")[node]


def test_equal_graphs_are_the_same_whatever_their_titles_and_order_of_inputs() -> None:
    other = painting()
    other["6"]["_meta"] = {"title": "words"}
    other["3"]["inputs"] = dict(reversed(other["3"]["inputs"].items()))
    assert same(painting(), other)


def test_a_changed_input_changes_all_that_depends_on_it_and_nothing_else() -> None:
    other = copy.deepcopy(painting())
    other["3"]["inputs"]["seed"] = 2
    assert not same(painting(), other, "9")
    assert same(painting(), other, "6")


def test_another_id_is_no_other_node() -> None:
    one, two = flat(), {{"1": "11", "2": "12"}[name]: copy.deepcopy(node) for name, node in flat().items()}
    two["12"]["inputs"]["images"] = ["11", 0]
    assert signatures(one, lambda node: "")["2"] == signatures(two, lambda node: "")["12"]


def test_a_changed_file_counts() -> None:
    before = signatures(flat(), lambda node: "before" if node == "1" else "")
    after = signatures(flat(), lambda node: "after" if node == "1" else "")
    assert before["2"] != after["2"]


def test_loops_and_links_to_nowhere_in_unneeded_nodes_are_survived() -> None:
    graph = flat() | {
        "7": {"class_type": "ImageInvert", "inputs": {"image": ["8", 0]}},
        "8": {"class_type": "ImageInvert", "inputs": {"image": ["7", 0], "other": ["99", 0]}},
    }
    assert set(signatures(graph, lambda node: "")) == {"1", "2", "7", "8"}
