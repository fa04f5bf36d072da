"""The session with the broker: what is said when, and what happens when nobody answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from broker.protocol.records import Held, Phase, Timings
from broker.protocol.worker import (
    Announce,
    Beat,
    Complete,
    Draining,
    Invalid,
    Leave,
    Ready,
    Refused,
)
from tests.core.worker.world import BROKER, FACTS, SESSION, welcome
from worker.core.asks import NewSocket, Pulse, Send, Stop, StoreCapabilities
from worker.core.link import ANNOUNCE_MAX_MS, ANNOUNCE_MS, REPEAT_MS, Identity, Link, State

HELD = (Held(job_id="0" * 8 + "-0000-0000-0000-" + "0" * 12, attempt=1, phase=Phase.RUNNING),)
NO_TIME = Timings(staging_ms=0, waiting_ms=0, running_ms=0, loading_ms=0, finishing_ms=0)
END = Complete(job_id=HELD[0].job_id, attempt=1, outputs=(), timings=NO_TIME)
KEY = END.job_id, 1


class Talk:
    """A link, and what it asked since the last look."""

    def __init__(self, draw: float = 0.0) -> None:
        who = Identity(worker="w1", session=SESSION, version="1", labels=())
        self.link = Link(who, draw=lambda: draw, held=lambda: HELD)

    def asks(self, method: str, *arguments: Any, **named: Any) -> list[Any]:
        asks: list[Any] = []
        getattr(self.link, method)(asks, *arguments, **named)
        return asks

    def said(self, method: str, *arguments: Any, **named: Any) -> list[Any]:
        return [ask.message if isinstance(ask, Send) else ask for ask in self.asks(method, *arguments, **named)]

    def join(self, now_ms: int = 0, **changes: Any) -> list[Any]:
        self.asks("introduce", FACTS, now_ms)
        return self.said("received", dataclasses.replace(welcome(), **changes), now_ms)


def test_nothing_is_said_before_comfyui_has_answered_or_failed_to() -> None:
    talk = Talk()
    assert talk.asks("tick", 1_000_000) == [] and talk.link.deadline_ms() is None
    assert talk.asks("received", welcome(), 5) == [] and not talk.link.joined


def test_a_worker_whose_comfyui_never_answered_announces_itself_once_and_again_with_it() -> None:
    talk = Talk()
    (alone,) = talk.said("introduce_alone", 0)
    assert isinstance(alone, Announce)
    assert (alone.worker, alone.capabilities, alone.gpu.name, alone.comfyui_version) == ("w1", None, "", "")
    assert talk.asks("introduce_alone", 1) == []
    assert talk.said("received", welcome(), 2) == [Pulse(HELD)]
    assert (talk.link.joined, talk.link.serves) == (True, False)
    (whole,) = talk.said("introduce", FACTS, 3)
    assert (whole.capabilities, whole.gpu, talk.link.serves) == (FACTS.capabilities, FACTS.gpu, False)
    talk.asks("received", welcome(), 4)
    assert (talk.link.joined, talk.link.serves) == (True, True)
    assert talk.asks("introduce_alone", 5) == [], "what it is stays known while its ComfyUI is away"


def test_announce_names_the_worker_its_card_and_what_it_holds() -> None:
    (announce,) = Talk().said("introduce", FACTS, 0)
    assert isinstance(announce, Announce)
    assert (announce.worker, announce.session, announce.held) == ("w1", SESSION, HELD)
    assert (announce.capabilities, announce.gpu) == (FACTS.capabilities, FACTS.gpu)


def test_the_same_facts_are_announced_once_and_others_again() -> None:
    talk = Talk()
    talk.join()
    assert talk.asks("introduce", FACTS, 1) == []
    other = dataclasses.replace(FACTS, capabilities="f" * 64)
    assert [type(m) for m in talk.said("introduce", other, 2)] == [Announce]
    assert not talk.link.joined


def test_an_announce_without_answer_is_repeated_on_a_new_socket_ever_more_rarely() -> None:
    talk = Talk(draw=1.0)
    talk.asks("introduce", FACTS, 0)
    now_ms, waits = 0, []
    for _ in range(6):
        due_ms = talk.link.deadline_ms()
        assert due_ms is not None
        assert talk.asks("tick", due_ms - 1) == []
        assert [type(ask) for ask in talk.asks("tick", due_ms)] == [NewSocket, Send]
        waits.append(due_ms - now_ms)
        now_ms = due_ms
    assert waits == [1_000, 2_000, 4_000, 5_000, 5_000, 5_000]
    assert waits[0] == ANNOUNCE_MS and waits[-1] == ANNOUNCE_MAX_MS


def test_welcome_is_followed_by_a_beat_and_what_the_broker_lacks() -> None:
    assert Talk().join(need_capabilities=True) == [StoreCapabilities(), Pulse(HELD)]
    assert Talk().join() == [Pulse(HELD)]


def test_a_beat_can_ask_for_capabilities_again() -> None:
    talk = Talk()
    talk.join()
    assert talk.asks("received", Beat(need_capabilities=True, ready=0), 1) == [StoreCapabilities()]
    assert talk.asks("received", Beat(need_capabilities=False, ready=0), 1) == []


def test_heartbeats_keep_the_interval_of_the_welcome() -> None:
    talk = Talk()
    talk.join(heartbeat_ms=300)
    assert talk.link.deadline_ms() == 300
    assert talk.asks("tick", 299) == []
    assert talk.asks("tick", 300) == [Pulse(HELD)]
    assert talk.link.deadline_ms() == 600


def test_room_is_said_when_it_changes() -> None:
    talk = Talk()
    talk.join()
    assert talk.said("room", 2, idle=True) == [Ready(serial=1, credits=2, seen=0)]
    assert talk.said("room", 2, idle=True) == []
    assert talk.said("tick", 2_000) == [Pulse(HELD)]
    talk.link.dispatched(1)
    talk.link.dispatched(1)
    assert talk.said("room", 1, idle=True) == [Ready(serial=2, credits=1, seen=1)]
    talk.link.dispatched(2)
    assert talk.said("room", 0, idle=True) == [Ready(serial=3, credits=0, seen=2)]


def test_room_of_which_the_broker_has_not_heard_is_said_again() -> None:
    talk = Talk()
    talk.join()
    talk.asks("room", 2, idle=True)
    assert talk.said("received", Beat(need_capabilities=False, ready=0), 100) == [], "it was said after that heartbeat"
    assert talk.said("tick", 2_000) == [Pulse(HELD)]
    assert talk.said("received", Beat(need_capabilities=False, ready=1), 2_001) == []
    assert talk.said("tick", 4_000) == [Pulse(HELD)]
    assert talk.said("received", Beat(need_capabilities=False, ready=0), 4_001) == [Ready(serial=2, credits=2, seen=0)]
    talk.asks("room", 0, idle=True)
    talk.asks("tick", 6_000)
    assert talk.said("received", Beat(need_capabilities=False, ready=2), 6_001) == [Ready(serial=4, credits=0, seen=0)]


def test_room_of_a_worker_with_nothing_to_do_does_not_wait() -> None:
    talk = Talk()
    talk.join()
    assert talk.asks("room", 2, idle=True) == [Send(Ready(serial=1, credits=2, seen=0))]
    assert talk.asks("room", 1, idle=False) == [Send(Ready(serial=2, credits=1, seen=0), can_wait=True)]


def test_another_broker_counts_its_dispatches_anew() -> None:
    talk = Talk()
    talk.join()
    talk.link.dispatched(7)
    talk.asks("room", 1, idle=True)
    assert Ready(serial=2, credits=1, seen=7) in talk.said("received", welcome(), 10)
    assert Ready(serial=3, credits=1, seen=0) in talk.said("received", welcome(broker="e" * 32), 20)
    assert talk.said("room", 1, idle=True) == []


def test_silence_for_a_lease_means_a_new_socket_and_the_same_session() -> None:
    talk = Talk()
    talk.join(heartbeat_ms=4_000, lease_ms=10_000)
    for now_ms in (4_000, 8_000):
        talk.asks("tick", now_ms)
    assert talk.link.deadline_ms() == 10_000
    socket, announce = talk.said("tick", 10_000)
    assert isinstance(socket, NewSocket) and announce.session == SESSION
    assert talk.link.state is State.ANNOUNCING


def test_any_message_is_life() -> None:
    talk = Talk()
    talk.join(heartbeat_ms=60_000, lease_ms=10_000)
    talk.asks("received", Beat(need_capabilities=False, ready=0), 9_000)
    assert talk.asks("tick", 10_000) == []
    assert talk.link.deadline_ms() == 19_000


def test_an_end_is_kept_and_repeated_until_it_is_recorded() -> None:
    talk = Talk()
    talk.join(heartbeat_ms=60_000, lease_ms=60_000)
    assert talk.said("ended", END, 100) == [END]
    assert talk.link.deadline_ms() == 100 + REPEAT_MS
    assert talk.said("tick", 100 + REPEAT_MS) == [END]
    assert talk.said("received", welcome(), 6_000)[-1] == END
    talk.link.recorded(KEY)
    talk.link.recorded(KEY)
    assert END not in talk.said("tick", 40_000)


def test_an_end_while_nobody_listens_is_said_at_the_next_welcome() -> None:
    talk = Talk()
    talk.asks("introduce", FACTS, 0)
    assert talk.said("ended", END, 1) == []
    assert END in talk.said("received", welcome(), 2)


def test_a_broker_that_does_not_know_the_session_is_announced_to_at_once() -> None:
    talk = Talk()
    talk.join()
    refusal = Refused(why="announce first", retry=True)
    assert [type(m) for m in talk.said("received", refusal, 5)] == [Announce]
    # The same answer to what was said before does not announce twice.
    assert talk.said("received", refusal, 6) == []


@pytest.mark.parametrize(
    "message", [Refused(why="wrong key", retry=False), Invalid(code="VERSION", detail="wrong key", count=1)]
)
def test_a_refusal_for_good_stops_the_worker(message: Any) -> None:
    talk = Talk()
    talk.join()
    *_goodbye, stop = talk.asks("received", message, 5)
    assert isinstance(stop, Stop) and stop.failed and "wrong key" in stop.why
    assert talk.asks("received", welcome(), 6) == [] and talk.asks("introduce", FACTS, 7) == []
    assert talk.link.deadline_ms() is None


def test_other_complaints_do_not_stop_it() -> None:
    talk = Talk()
    talk.join()
    assert talk.asks("received", Invalid(code="INVALID", detail="x", count=1), 5) == [] and talk.link.joined


def test_a_draining_worker_says_so_after_every_welcome_and_has_no_room() -> None:
    talk = Talk()
    talk.join()
    assert talk.said("drain") == [Draining()]
    assert talk.said("drain") == []
    assert talk.said("room", 2, idle=True) == [Ready(serial=1, credits=0, seen=0)]
    assert Draining() in talk.said("received", welcome(broker=BROKER), 5)


def test_leaving_says_goodbye_to_whoever_listens() -> None:
    talk = Talk()
    talk.join()
    assert talk.said("leave", "done") == [Leave(why="done"), Stop("done", False)]
    alone = Talk()
    alone.asks("drain")
    assert alone.asks("leave", "done") == [Stop("done", False)]
