"""The hub and the mailbox: snapshot and deltas give every browser the hub's state, whatever was merged or lost."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.protocol import events
from broker.protocol.client import SnapshotReply
from broker.protocol.records import Expected, FleetStats, Held, JobState, Phase, WorkerState
from broker.protocol.value import replace
from tests.web.fake_broker import a_job, a_progress, a_worker, an_output
from web.frames import Opcode
from web.hub import MAX_ENDED, MAX_GONE, MAX_QUEUED, Changes, Hub, Scope
from web.mailbox import MAX_WAITING_BYTES, SNAPSHOT, Frame, Mailbox
from web.viewer import Viewer, may_see

STREAM = "0" * 32
IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(6)]
OWNERS = ["ann", "bob"]


def stats(queued: int = 0) -> FleetStats:
    zeros = dict.fromkeys(("leased", "running", "cancelling", "succeeded", "failed", "cancelled", "workers"), 0)
    return FleetStats(
        **zeros,
        queued=queued,
        paused=False,
        disk_full=False,
        oldest_queued_utc_ms=None,
        invalid_messages=0,
        uptime_ms=1,
        expected_error=None,
    )


def reply(jobs: Any = (), workers: Any = ()) -> SnapshotReply:
    return SnapshotReply(
        request_id=STREAM, stream=STREAM, serial=1, workers=tuple(workers), jobs=tuple(jobs), stats=stats(), outlook=()
    )


def changed(job: Any) -> events.JobChanged:
    return events.JobChanged(stream=STREAM, serial=1, job=job)


def progressed(job_id: str, attempt: int, value: int = 1) -> events.JobProgress:
    return events.JobProgress(stream=STREAM, serial=1, job_id=job_id, attempt=attempt, progress=a_progress(value))


def messages(data: bytes) -> list[tuple[Opcode, bytes]]:
    """The frames in a server's bytes."""
    found = []
    while data:
        size, ahead = data[1], 2
        if size >= 126:
            ahead += 2 if size == 126 else 8
            size = int.from_bytes(data[2:ahead], "big")
        found.append((Opcode(data[0] & 0x0F), data[ahead : ahead + size]))
        data = data[ahead + size :]
    return found


class Page:
    """What a page does with the messages it gets: the state it ends up with, or a complaint."""

    def __init__(self) -> None:
        self.serial: int | None = None
        self.jobs: dict[str, Any] = {}
        self.workers: dict[str, Any] = {}
        self.stats: Any = None
        self.outlook: Any = None
        self.connected = False
        self.gap = False

    def take(self, data: bytes) -> None:
        for opcode, payload in messages(data):
            if opcode is Opcode.TEXT:
                self._text(json.loads(payload))

    def _text(self, message: Any) -> None:
        kind = message["type"]
        if kind == "tick":
            return
        if kind == "snapshot":
            self.jobs = {job["id"]: job for job in message["jobs"]}
            self.workers = {worker["name"]: worker for worker in message["workers"]}
            self.stats, self.connected, self.gap = message["stats"], message["connected"], False
            self.outlook = message["outlook"]
        elif kind != "skip" and message["serial"] != (self.serial or 0) + 1:
            self.gap = True
        self.serial = message["serial"]
        match kind:
            case "job":
                self.jobs[message["job"]["id"]] = message["job"]
            case "progress":
                job = self.jobs[message["id"]]
                if job["attempt"] == message["attempt"]:
                    self.jobs[message["id"]] = {**job, "progress": message["progress"]}
            case "job_gone":
                self.jobs.pop(message["id"], None)
            case "worker":
                self.workers[message["worker"]["name"]] = message["worker"]
            case "worker_gone":
                # A worker that came and went while this page was slow may never have been told of.
                self.workers.pop(message["name"], None)
            case "stats":
                self.stats = message["stats"]
            case "outlook":
                self.outlook = message["queue"]
            case "fleet":
                self.connected = message["connected"]


class Line:
    """A connection to a page that takes as many bytes as the test lets it, through a mailbox."""

    def __init__(self, hub: Hub, scope: Scope) -> None:
        self.hub, self.scope = hub, scope
        self.page = Page()
        self.mailbox = Mailbox()
        self.flight = b""
        self.blocked = False
        self.deliver([hub.join(scope)])

    def deliver(self, frames: list[Frame]) -> None:
        if not self.mailbox.empty:
            self.mailbox.add(frames)
            return
        joined = b"".join(frame.data for frame in frames)
        taken = len(joined) // 2 if self.blocked else len(joined)
        self.flight += joined[:taken]
        serial = next((frame.serial for frame in reversed(frames) if frame.serial is not None), None)
        self.mailbox.sent(serial, joined[taken:])

    def drain(self, most: int) -> None:
        data = self.mailbox.take(most)
        keep = len(data) // 3 if self.blocked else 0
        self.flight += data[: len(data) - keep]
        if keep:
            self.mailbox.put_back(data[len(data) - keep :])

    def catch_up(self) -> None:
        self.blocked = False
        while not self.mailbox.empty:
            self.drain(1_000)
        self.page.take(self.flight)
        self.flight = b""


class HubMachine(RuleBasedStateMachine):
    """Browsers of three scopes; events, drops, merged mailboxes, resyncs and broker restarts in any order."""

    @initialize()
    def begin(self) -> None:
        self.hub = Hub()
        self.lines = [Line(self.hub, scope) for scope in (None, "ann", "bob", "ann")]
        self.attempts = dict.fromkeys(IDS, 0)
        self.tell(self.hub.reset(reply()))

    def tell(self, changes: Changes, lost_for: int | None = None) -> None:
        for number, line in enumerate(self.lines):
            if frames := changes.frames.get(line.scope):
                if number != lost_for:
                    line.deliver(frames)
                elif any(frame.serial is not None for frame in frames):
                    line.page.gap = True

    def resync(self, line: Line) -> None:
        line.catch_up()
        line.deliver([self.hub.resync(line.scope)])

    def owner(self, job_id: str) -> str:
        return OWNERS[IDS.index(job_id) % 2]

    @rule(job_id=st.sampled_from(IDS), state=st.sampled_from(list(JobState)), more=st.integers(0, 1))
    def job(self, job_id: str, state: JobState, more: int) -> None:
        self.attempts[job_id] += more
        job = a_job(job_id=job_id, owner=self.owner(job_id), state=state, attempt=self.attempts[job_id])
        self.tell(self.hub.apply([changed(job)]))

    @rule(job_id=st.sampled_from(IDS), values=st.lists(st.integers(0, 20), min_size=1, max_size=5))
    def progress(self, job_id: str, values: list[int]) -> None:
        if (seen := self.hub.job(job_id)) is None or seen["state"] != JobState.RUNNING:
            self.job(job_id, JobState.RUNNING, 1)
        self.tell(self.hub.apply([progressed(job_id, self.attempts[job_id], value) for value in values]))

    @rule(job_id=st.sampled_from(IDS))
    def deleted(self, job_id: str) -> None:
        gone = events.JobGone(stream=STREAM, serial=1, job_id=job_id, owner=self.owner(job_id))
        self.tell(self.hub.apply([gone]))
        assert self.hub.job(job_id) is None

    @rule(job_id=st.sampled_from(IDS))
    def late_progress(self, job_id: str) -> None:
        self.tell(self.hub.apply([progressed(job_id, self.attempts[job_id] + 1)]))

    @rule(job_id=st.sampled_from(IDS))
    def preview(self, job_id: str) -> None:
        image = events.JobPreview(
            job_id=job_id, attempt=max(1, self.attempts[job_id]), media_type="image/jpeg", image=b"x"
        )
        self.tell(self.hub.apply([image]))

    @rule(name=st.sampled_from(["w1", "w2"]), state=st.sampled_from(list(WorkerState)), job_id=st.sampled_from(IDS))
    def worker(self, name: str, state: WorkerState, job_id: str) -> None:
        held = (Held(job_id=job_id, attempt=1, phase=Phase.RUNNING),)
        worker = a_worker(name, state=state, held=held)
        self.tell(self.hub.apply([events.WorkerChanged(stream=STREAM, serial=1, worker=worker)]))

    @rule(name=st.sampled_from(["w1", "w2"]))
    def gone(self, name: str) -> None:
        if any(worker["name"] == name for worker in self.hub.workers(None)):
            self.tell(self.hub.apply([events.WorkerGone(stream=STREAM, serial=1, worker=name)]))

    @rule(queued=st.integers(0, 9))
    def counts(self, queued: int) -> None:
        self.tell(self.hub.apply([events.StatsChanged(stream=STREAM, serial=1, stats=stats(queued))]))

    @rule(which=st.integers(0, 3), job_id=st.sampled_from(IDS))
    def drop(self, which: int, job_id: str) -> None:
        """One browser loses what it should have got; its page sees the gap at the next message, and asks."""
        job = a_job(job_id=job_id, owner=self.owner(job_id), attempt=self.attempts[job_id])
        self.tell(self.hub.apply([changed(job)]), lost_for=which)
        if self.lines[which].page.gap:
            self.resync(self.lines[which])

    @rule(blocked=st.lists(st.booleans(), min_size=4, max_size=4))
    def block(self, blocked: list[bool]) -> None:
        for line, now in zip(self.lines, blocked, strict=True):
            line.blocked = now

    @rule(which=st.integers(0, 3), most=st.integers(1, 3_000))
    def drain(self, which: int, most: int) -> None:
        if not self.lines[which].mailbox.empty:
            self.lines[which].drain(most)

    @rule(which=st.integers(0, 3))
    def asks_again(self, which: int) -> None:
        self.resync(self.lines[which])

    @rule(ahead=st.lists(st.sampled_from(IDS), unique=True, max_size=3))
    def the_outlook_changes(self, ahead: list[str]) -> None:
        queue = tuple(
            Expected(job_id=job_id, owner=self.owner(job_id), place=place, start_utc_ms=place)
            for place, job_id in enumerate(ahead, start=1)
        )
        self.tell(self.hub.apply([events.Outlook(stream=STREAM, serial=1, queue=queue)]))

    @rule()
    def broker_goes(self) -> None:
        self.tell(self.hub.lost())

    @rule()
    def broker_is_found(self) -> None:
        self.tell(self.hub.found())

    @rule(kept=st.integers(0, len(IDS)))
    def broker_restarts(self, kept: int) -> None:
        jobs = [a_job(job_id=job_id, owner=self.owner(job_id)) for job_id in IDS[:kept]]
        self.attempts = dict.fromkeys(IDS, 0)
        self.tell(self.hub.reset(reply(jobs, [a_worker("w1")])))

    @invariant()
    def every_page_equals_the_hub(self) -> None:
        for line in self.lines:
            if line.blocked:
                continue
            line.catch_up()
            assert not line.page.gap, "a gap without a loss"
            truth = self.hub.snapshot(line.scope)
            assert line.page.jobs == {job["id"]: job for job in truth["jobs"]}
            assert line.page.stats == truth["stats"]
            assert line.page.outlook == truth["outlook"]
            assert line.page.connected == truth["connected"]
            # What a worker holds is shown to others only as long as the job is theirs: names always agree.
            assert line.page.workers.keys() == {worker["name"] for worker in truth["workers"]}
            if line.scope is None:
                assert line.page.workers == {worker["name"]: worker for worker in truth["workers"]}

    @invariant()
    def nobody_hears_of_anybody_else(self) -> None:
        for line in self.lines:
            seen = [job["owner"] for job in line.page.jobs.values()]
            assert all(may_see(line.scope, owner) for owner in seen)
            held = [held["job_id"] for worker in line.page.workers.values() for held in worker["held"]]
            assert all(may_see(line.scope, self.owner(job_id)) for job_id in held)


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=60, stateful_step_count=40)


def test_an_event_is_encoded_once_for_all_browsers_of_a_scope() -> None:
    hub = Hub()
    for _ in range(3):
        hub.join(None)
    changes = hub.apply([changed(a_job())])
    assert list(changes.frames) == [None]
    assert len(changes.frames[None]) == 1


def test_a_first_result_that_somebody_watches_is_about_to_be_asked_for() -> None:
    hub = Hub()
    first, second = an_output(b"1"), an_output(b"2")
    done = changed(a_job(owner="ann", state=JobState.SUCCEEDED, outputs=(first, second)))
    assert hub.apply([done]).results == []
    hub.join("bob")
    assert hub.apply([done]).results == []
    hub.join("ann")
    assert hub.apply([done]).results == [first]
    assert hub.apply([changed(a_job(owner="ann", state=JobState.RUNNING, attempt=1))]).results == []


def test_a_snapshot_is_encoded_once_until_something_changes() -> None:
    hub = Hub()
    first = hub.join(None)
    assert hub.join(None) is first
    hub.apply([changed(a_job())])
    assert hub.resync(None) is not first


def test_what_is_remembered_is_bounded() -> None:
    hub = Hub()
    running = a_job(state=JobState.RUNNING, attempt=1)
    hub.apply([changed(running)])
    hub.apply([changed(a_job()) for _ in range(MAX_QUEUED + 5)])
    ended = [a_job(state=JobState.SUCCEEDED) for _ in range(MAX_ENDED + 5)]
    hub.apply([changed(job) for job in ended])
    assert len(hub.snapshot(None)["jobs"]) == MAX_QUEUED + MAX_ENDED + 1
    assert hub.job(running.job_id) is not None
    assert hub.job(ended[0].job_id) is None and hub.job(ended[-1].job_id) is not None


def test_a_forgotten_job_comes_back_with_its_next_change() -> None:
    hub = Hub()
    first = a_job()
    hub.apply([changed(job) for job in (first, *(a_job() for _ in range(MAX_QUEUED)))])
    assert hub.job(first.job_id) is None
    hub.apply([changed(first)])
    assert hub.job(first.job_id) is not None


def test_a_worker_holds_a_forgotten_job_for_its_owner_once_whose_it_is_is_known() -> None:
    hub = Hub()
    hub.reset(reply())
    hub.join("ann")
    job = a_job(owner="ann", state=JobState.RUNNING, attempt=1, worker="gpu-0")
    held = (Held(job_id=job.job_id, attempt=1, phase=Phase.RUNNING),)
    hub.apply([events.WorkerChanged(stream=STREAM, serial=1, worker=a_worker("gpu-0", held=held))])
    frames = hub.apply([changed(job)]).frames["ann"]
    shown = json.loads(messages(frames[-1].data)[0][1])
    assert [one["job_id"] for one in shown["worker"]["held"]] == [job.job_id]
    assert len(hub.apply([changed(job)]).frames["ann"]) == 1, "that is told once"


def test_only_workers_that_can_be_given_work_count_for_what_the_fleet_can_do() -> None:
    hub = Hub()
    here, lost = a_worker("w1"), a_worker("w2", state=WorkerState.LOST)
    hub.reset(reply(workers=[here, lost]))
    assert hub.abilities() == {here.capabilities}
    hub.apply([events.WorkerChanged(stream=STREAM, serial=2, worker=replace(lost, state=WorkerState.READY))])
    assert hub.abilities() == {here.capabilities, lost.capabilities}


@pytest.mark.parametrize("state", [WorkerState.LOST, None], ids=["falls silent", "leaves"])
def test_what_the_last_workers_could_do_counts_until_one_comes(state: WorkerState | None) -> None:
    hub = Hub()
    first, second, other = a_worker("w1"), a_worker("w2"), a_worker("w3")
    hub.reset(reply(workers=[first, second]))
    for gone in (first, second):
        if state is None:
            hub.apply([events.WorkerGone(stream=STREAM, serial=2, worker=gone.worker)])
        else:
            hub.apply([events.WorkerChanged(stream=STREAM, serial=2, worker=replace(gone, state=state))])
    both = {first.capabilities, second.capabilities}
    assert hub.abilities() == both
    hub.reset(reply(workers=[]))
    assert hub.abilities() == both
    hub.apply([events.WorkerChanged(stream=STREAM, serial=3, worker=other)])
    assert hub.abilities() == {other.capabilities}


def test_no_more_than_a_few_kinds_of_workers_are_remembered_when_all_are_gone() -> None:
    hub = Hub()
    fleet = [a_worker(f"w{number}") for number in range(MAX_GONE + 5)]
    hub.reset(reply(workers=fleet))
    hub.apply([events.WorkerGone(stream=STREAM, serial=2, worker=one.worker) for one in fleet])
    assert hub.abilities() == {one.capabilities for one in fleet[5:]}


def test_an_admin_sees_everything_and_others_their_own() -> None:
    assert may_see(Viewer("root", True).scope, "ann")
    assert may_see(Viewer("ann", False).scope, "ann")
    assert not may_see(Viewer("ann", False).scope, "bob")
    assert not may_see(Viewer("", False).scope, "bob")


# ---- the mailbox alone


def frame(serial: int | None, key: str, text: str = "x") -> Frame:
    from web.frames import encode

    return Frame(serial, key, encode(Opcode.TEXT, text.encode()))


def texts(data: bytes) -> list[str]:
    return [payload.decode() for _, payload in messages(data)]


def test_of_one_key_the_newest_stays_and_a_skip_tells_of_the_others() -> None:
    box = Mailbox()
    box.sent(4, b"")
    box.add([frame(5, "p", "5"), frame(6, "", "6"), frame(7, "p", "7"), frame(8, "p", "8")])
    assert texts(bytes(box.take(10_000))) == ['{"type":"skip","serial":5}', "6", '{"type":"skip","serial":7}', "8"]
    assert box.empty and box.size_bytes == 0


def test_a_snapshot_stands_for_everything_before_it() -> None:
    box = Mailbox()
    box.add([frame(1, "", "1"), frame(2, "", "2")])
    box.add([frame(9, SNAPSHOT, "9"), frame(10, "", "10")])
    assert texts(bytes(box.take(10_000))) == ["9", "10"]


def test_the_rest_of_a_frame_comes_first_and_nothing_comes_into_it() -> None:
    box, whole = Mailbox(), frame(1, "", "hello").data
    box.sent(1, whole[3:])
    box.add([frame(2, "", "2")])
    box.end(b"bye")
    assert [box.take(10_000), box.take(10_000)] == [whole[3:], b"bye"]
    assert box.empty and box.size_bytes == 0


def test_it_is_full_beyond_its_bound_and_not_before() -> None:
    box = Mailbox()
    box.add([Frame(1, "", b"x" * MAX_WAITING_BYTES)])
    assert not box.full
    box.add([Frame(2, "", b"x")])
    assert box.full


def test_a_snapshot_never_fills_it_begun_or_waiting() -> None:
    begun, waiting = Mailbox(), Mailbox()
    begun.sent(1, b"x" * 2 * MAX_WAITING_BYTES)
    waiting.add([Frame(1, SNAPSHOT, b"x" * 2 * MAX_WAITING_BYTES)])
    for box in (begun, waiting):
        box.add([Frame(2, "", b"x" * MAX_WAITING_BYTES)])
        assert not box.full
        box.add([Frame(3, "", b"x")])
        assert box.full


def test_progress_of_one_job_never_fills_it() -> None:
    box = Mailbox()
    for serial in range(1, 5_000):
        box.add([Frame(serial, "progress a", b"x" * 1_000)])
    assert not box.full
