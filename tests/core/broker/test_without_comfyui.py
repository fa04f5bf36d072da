"""A worker whose ComfyUI has never answered: present, without work, and as good as any once it does."""

from __future__ import annotations

from broker.protocol import worker as wire
from tests.core.broker.given import NEEDS, Given


def test_a_worker_without_comfyui_is_shown_gets_nothing_and_works_once_it_has_told_what_it_is(broker: Given) -> None:
    gpu = broker.worker("gpu-0", met=False)
    gpu.announces()
    assert [said.need_capabilities for said in gpu.got if isinstance(said, wire.Welcome)] == [False]
    gpu.has_room(0)
    gpu.beats(comfy_fault="no answer")
    assert gpu.last == wire.Beat(need_capabilities=False, ready=gpu.serial)
    view = broker.fleet.roster.view(broker.fleet.roster.by_name["gpu-0"])
    assert (view.state, view.capabilities, view.stats and view.stats.comfy_fault) == ("ready", None, "no answer")
    broker.submitted()
    broker.tick()
    assert gpu.dispatched == []
    gpu.met = True
    gpu.announces()
    assert [said.need_capabilities for said in gpu.got if isinstance(said, wire.Welcome)] == [False, True]
    gpu.offers(*NEEDS.nodes)
    gpu.has_room()
    broker.tick()
    assert len(gpu.dispatched) == 1


def test_a_worker_whose_word_of_its_comfyui_was_lost_is_asked_to_say_it_again(broker: Given) -> None:
    gpu = broker.worker("gpu-0", met=False)
    gpu.announces()
    gpu.beats(comfy_fault="no answer")
    assert not [said for said in gpu.got if isinstance(said, wire.Refused)]
    gpu.beats(comfy_fault="")
    assert [said.retry for said in gpu.got if isinstance(said, wire.Refused)] == [True]


def test_a_worker_without_comfyui_does_not_take_the_name_of_one_at_work(broker: Given) -> None:
    gpu, twin = broker.joined("gpu-0"), broker.worker("gpu-0", 2, met=False)
    twin.announces()
    assert [said.retry for said in twin.got if isinstance(said, wire.Refused)] == [True]
    assert not [said for said in gpu.got if isinstance(said, wire.Refused)]
    twin.met = True
    twin.announces()
    assert [said.retry for said in gpu.got if isinstance(said, wire.Refused)] == [False]
