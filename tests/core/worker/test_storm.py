"""Every order of events leaves each attempt with exactly one ending, and nothing of it in ComfyUI.

Random storms of broker, ComfyUI, socket, shell and time, then calm: whoever was dispatched and not abandoned has been
told of once, and the worker asks for work again.
"""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.protocol.ids import prompt_id_for
from broker.protocol.records import Reason, Resume
from broker.protocol.worker import (
    Abandon,
    CancelAttempt,
    Complete,
    Drain,
    Fail,
    OutputsMissing,
    Ready,
    Recorded,
    Refused,
)
from comfyui.replies import Outcome, Queue
from tests.core.worker.world import BROKER, LIMITS, World, dispatch, machine, welcome
from worker.core.asks import Key, Stop

OUTCOMES = st.sampled_from(Outcome)


def of(end: Complete | Fail) -> Key:
    return end.job_id, end.attempt


class Storm(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.join()
        #: The broker's process life, and what it has dispatched.
        self.broker = BROKER
        self.dispatched = 0
        #: Leased to this worker as the broker sees it, with the serial of the dispatch (0: claimed at a welcome), and
        #: of those the ones that the worker has taken.
        self.leased: dict[Key, int] = {}
        self.taken: set[Key] = set()
        self.cancelled: set[Key] = set()
        #: Taken away, and how much the worker had said by then.
        self.abandoned: dict[Key, int] = {}
        #: Whose end may be said anew, differently.
        self.sent_back: set[Key] = set()
        self.recorded: dict[Key, Any] = {}
        self.listened = 0
        self.died = False

    # ---- the broker

    def listen(self) -> None:
        """The broker takes what was said: it records the first end of each attempt it has leased."""
        for message in self.world.said[self.listened :]:
            if isinstance(message, (Complete, Fail)):
                key = of(message)
                if key in self.leased:
                    del self.leased[key]
                    self.recorded[key] = message
        self.listened = len(self.world.said)

    @rule(another=st.booleans())
    def welcomes(self, another: bool) -> None:
        self.listen()
        if another:
            self.broker = f"{int(self.broker, 16) + 1:032x}"
        self.leased = dict.fromkeys(self.leased, 0)
        self.world.tell_machine(welcome(broker=self.broker))

    def room(self) -> int:
        ready = self.world.all(Ready)
        if not ready or not self.world.machine.link.joined:
            return 0
        newest: Ready = ready[-1]
        return newest.credits - sum(1 for serial in self.leased.values() if serial > newest.seen)

    @precondition(lambda self: self.room() > 0)
    @rule()
    def dispatches(self) -> None:
        self.dispatched += 1
        said = dispatch(self.dispatched, str(uuid.UUID(int=self.dispatched)))
        key = said.job_id, said.attempt
        self.leased[key] = self.dispatched
        self.world.tell_machine(said)
        if key in self.world.machine.runs:
            self.taken.add(key)

    @precondition(lambda self: self.leased and self.world.machine.link.joined)
    @rule(data=st.data())
    def dispatches_again(self, data: st.DataObject) -> None:
        job_id, attempt = data.draw(st.sampled_from(sorted(self.leased)))
        self.world.tell_machine(dispatch(self.leased[job_id, attempt], job_id, attempt))

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), kind=st.sampled_from([Abandon, CancelAttempt, OutputsMissing]))
    def is_told(self, data: st.DataObject, kind: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.leased)))
        more: dict[Any, dict[str, Any]] = {Abandon: {"why": "x"}, OutputsMissing: {"missing": ()}}
        if kind is Abandon:
            del self.leased[key]
            self.taken.discard(key)
            self.abandoned[key] = len(self.world.said)
        if kind is CancelAttempt:
            self.cancelled.add(key)
        if kind is OutputsMissing:
            self.sent_back.add(key)
        self.world.tell_machine(kind(job_id=key[0], attempt=key[1], **more.get(kind, {})))

    @rule()
    def records(self) -> None:
        self.listen()
        for key in self.recorded:
            self.world.tell_machine(Recorded(job_id=key[0], attempt=key[1]))

    @rule()
    def refuses(self) -> None:
        self.world.tell_machine(Refused(why="announce first", retry=True))

    # ---- ComfyUI and its socket

    @rule(outcome=OUTCOMES, begins=st.booleans())
    def comfy_works(self, outcome: Outcome, begins: bool) -> None:
        if begins:
            self.world.comfy.begin()
        else:
            self.world.comfy.finish(outcome)

    @precondition(lambda self: self.world.comfy.events)
    @rule(lost=st.booleans(), all_of_them=st.booleans())
    def socket_speaks(self, lost: bool, all_of_them: bool) -> None:
        while self.world.comfy.events:
            if lost:
                self.world.comfy.events.popleft()
            else:
                self.world.hear()
            if not all_of_them:
                return

    @rule(quickly=st.booleans())
    def comfy_dies(self, quickly: bool) -> None:
        self.died = True
        if quickly:
            self.world.comfy.die()
            self.world.comfy.up = True
        else:
            self.world.fall()

    @rule(targeted=st.booleans())
    def comfy_rises(self, targeted: bool) -> None:
        self.world.rise(targeted_interrupt=targeted)

    # ---- the shell, time, and the worker's own life

    @precondition(lambda self: self.world.calls)
    @rule(answered=st.booleans())
    def calls(self, answered: bool) -> None:
        self.world.call(answered=answered)

    @precondition(lambda self: self.world.carried)
    @rule(well=st.booleans())
    def carries(self, well: bool) -> None:
        self.world.carry(well=well)

    @rule(by_ms=st.sampled_from([0, 10, 500, 1_000, 5_000, 20_000, 120_000]))
    def time_passes(self, by_ms: int) -> None:
        self.world.tick(by_ms)

    @rule()
    def the_worker_is_restarted(self) -> None:
        self.listen()
        self.world.calls.clear()
        self.world.carried.clear()
        self.world.machine = machine()
        resume = tuple(
            Resume(
                job_id=key[0], attempt=key[1], prompt_id=prompt_id_for(*key), cancelling=key in self.cancelled,
                limits=LIMITS,
            )
            for key in sorted(self.leased)
        )  # fmt: skip
        self.world.rise()
        self.world.tell_machine(welcome(resume, broker=self.broker))
        self.leased = dict.fromkeys(self.leased, 0)
        self.taken = set(self.leased)

    # ---- what always holds

    @invariant()
    def holds(self) -> None:
        core = self.world.machine
        held = [h for run in core.runs.values() if (h := run.held) is not None]
        assert len({(h.job_id, h.attempt) for h in held}) == len(held) <= 64
        begun = self.world.comfy.begun
        assert self.died or not begun or max(begun.values()) == 1
        ready = self.world.all(Ready)
        assert not ready or 0 <= ready[-1].credits <= 2

    def teardown(self) -> None:
        """Calm: whatever is asked is done, whatever ends is recorded."""
        world = self.world
        world.rise()
        for _ in range(20):
            if not world.machine.link.joined:
                world.tell_machine(welcome(broker=self.broker))
            world.work()
            world.run_prompt()
            self.records()
            world.tick(2_000)
        assert not self.taken & self.leased.keys()
        assert not world.machine.runs and not world.machine.link.ends
        assert world.comfy.queue() == Queue((), ())
        assert world.all(Ready)[-1].credits == 2
        for key in {of(end) for end in world.all(Complete) + world.all(Fail)} - self.sent_back:
            ends = world.all(Complete, key) + world.all(Fail, key)
            assert all(end == ends[0] for end in ends)
        for key, said in self.abandoned.items():
            assert not [end for end in self.world.said[said:] if isinstance(end, (Complete, Fail)) and of(end) == key]
        for key in self.cancelled & self.recorded.keys():
            end = self.recorded[key]
            assert isinstance(end, Complete) or end.failure.reason in REASONS_AFTER_CANCEL


#: A cancelled attempt may still end by itself first.
REASONS_AFTER_CANCEL = set(Reason) - {Reason.DRAINING, Reason.INTERRUPTED}

Storm.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestStorm = Storm.TestCase


def test_a_drain_in_any_storm_ends_with_leave() -> None:
    world = World()
    world.join()
    for serial in (1, 2):
        world.tell_machine(dispatch(serial))
        world.work()
    world.comfy.begin()
    world.hear()
    world.tell_machine(Drain())
    world.work()
    assert [fail.failure.reason for fail in world.all(Fail)] == [Reason.DRAINING]
    world.comfy.finish(Outcome.SUCCESS)
    while world.comfy.events:
        world.hear()
    world.work()
    assert len(world.all(Complete)) == 1 and world.stop is None
    for end in world.all(Complete) + world.all(Fail):
        world.tell_machine(Recorded(job_id=end.job_id, attempt=end.attempt))
    assert world.stop == Stop("the broker asked it to", failed=False)
