"""The link and the feed when the broker is slow, silent, restarted, or its events get lost."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from broker.protocol import client, events
from broker.protocol.worker import Invalid
from tests.web.fake_broker import FakeBroker, a_job, a_worker
from tests.web.stage import PATIENCE_S, Stage, staged, until
from web import feed, link
from web.link import BrokerRefused, BrokerSilent, OutOfContract


@pytest.fixture
def curious() -> Iterator[Stage]:
    """A web process that soon asks whether it missed something, as in service."""
    with staged(quiet_s=feed.FIRST_QUIET_S) as made:
        yield made


def snapshots(stage: Stage) -> int:
    return sum(isinstance(asked, client.Snapshot) for asked in stage.broker.heard)


def test_a_silent_broker_is_503_with_retry_after_and_is_dialled_afresh() -> None:
    with staged(reply_ms=150, quiet_s=0.5) as stage:
        before = stage.web.link._socket
        stage.broker.silent = True
        answer = stage.get("/api/v1/stats")
        assert (answer.status, answer.code) == (503, "broker_away")
        assert int(answer.headers["retry-after"]) > 0
        assert stage.web.link._socket is not before, "the next request goes out under a fresh session"
        stage.broker.silent = False
        assert until(lambda: stage.get("/api/v1/stats").status == 200)


def test_a_broker_that_went_away_is_503_and_found_again_where_it_was() -> None:
    with staged(reply_ms=150, quiet_s=0.5) as stage:
        network = stage.broker.network
        stage.broker.close()
        assert stage.get("/api/v1/stats").status == 503
        until(lambda: not stage.web.hub.connected)
        assert stage.get("/healthz").json == {"status": "ok", "connected": False}
        assert stage.get("/").status == 200, "the page still opens, and says that the broker is away"
        stage.broker = FakeBroker(stage.context, network)
        job = stage.broker.put(a_job())
        until(lambda: stage.web.hub.connected)
        assert stage.web.hub.job(job.job_id) is not None
        assert until(lambda: stage.get("/api/v1/stats").status == 200)


def test_a_browser_gets_a_snapshot_when_the_broker_restarted() -> None:
    with staged(reply_ms=150, quiet_s=0.5) as stage:
        browser = stage.watch()
        browser.message()
        network = stage.broker.network
        stage.broker.close()
        stage.broker = FakeBroker(stage.context, network)
        job = stage.broker.put(a_job())
        told = browser.until("snapshot")
        assert [one["id"] for one in told["jobs"]] == [job.job_id]


def test_a_lost_event_is_noticed_by_the_next_one(stage: Stage) -> None:
    lost = a_job()
    stage.broker.jobs[lost.job_id] = lost
    stage.broker.serial += 1  # numbered, and never sent
    stage.broker.put(a_job())
    assert until(lambda: stage.web.hub.job(lost.job_id))


def test_a_lost_event_is_noticed_without_a_next_one(curious: Stage) -> None:
    lost = a_job()
    curious.broker.jobs[lost.job_id] = lost
    curious.broker.serial += 1
    assert until(lambda: curious.web.hub.job(lost.job_id))


def test_a_dead_subscription_is_dialled_again(curious: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a refused key: libzmq has given the connection up, and says nothing."""
    monkeypatch.setattr(feed, "LONGEST_QUIET_S", 0.2)
    curious.web._events.disconnect(curious.broker.network.events)

    def heard_by_event() -> bool:
        before = snapshots(curious)
        job = curious.broker.put(a_job())
        gevent.sleep(0.05)
        return curious.web.hub.job(job.job_id) is not None and snapshots(curious) == before

    assert until(heard_by_event)


def test_a_subscription_that_loses_events_is_not_dead(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[object] = []
    monkeypatch.setattr(feed.Feed, "_redial", dialled.append)
    monkeypatch.setattr(feed, "LONGEST_PAUSE_S", 0.01)
    for _ in range(2 * feed.DEAF_SNAPSHOTS):
        before = snapshots(stage)
        stage.broker.serial += 1  # numbered, and never sent
        job = stage.broker.put(a_job())
        until(lambda job=job: stage.web.hub.job(job.job_id))  # type: ignore[misc]
        assert snapshots(stage) > before
    assert dialled == []


def test_events_from_before_the_snapshot_are_not_taken_twice(stage: Stage) -> None:
    browser = stage.watch()
    serial = browser.message()["serial"]
    job = stage.broker.put(a_job())
    browser.message()
    stage.broker.serial -= 1
    stage.broker.publish(events.JobChanged, job=job)  # the same serial once more
    stage.broker.put(a_job())
    assert browser.message()["serial"] == serial + 2


def test_an_event_of_another_contract_is_survived(stage: Stage) -> None:
    stage.broker._events.send_multipart([events.TOPIC_JOB, b"CF1", b"\x80", b"\xc1 rubbish"])
    job = stage.broker.put(a_job())
    assert until(lambda: stage.web.hub.job(job.job_id))


def test_a_quiet_fleet_is_asked_for_less_and_less_often(curious: Stage) -> None:
    until(lambda: snapshots(curious) >= 2)
    before = snapshots(curious)
    assert curious.web.hub.connected
    until(lambda: snapshots(curious) > before)
    assert curious.web.hub.snapshot(None)["serial"] == 0, "no browser is sent a snapshot for it"


def test_a_worker_that_is_gone_is_gone_from_the_page(stage: Stage) -> None:
    browser = stage.watch()
    browser.message()
    stage.broker.meet(a_worker("w1"))
    assert browser.message()["worker"]["name"] == "w1"
    stage.broker.publish(events.WorkerGone, worker="w1")
    assert browser.message() == {"type": "worker_gone", "name": "w1", "serial": browser_serial(stage)}


def browser_serial(stage: Stage) -> int:
    return int(stage.web.hub.snapshot(None)["serial"])


def test_replies_reach_whoever_asked(stage: Stage) -> None:
    jobs = [stage.broker.put(a_job()) for _ in range(50)]
    asked = [
        gevent.spawn(stage.web.link.ask, client.JobReply, client.Get, job_id=job.job_id, full=False) for job in jobs
    ]
    assert [greenlet.get(timeout=PATIENCE_S).job.job_id for greenlet in asked] == [job.job_id for job in jobs]


def test_a_value_out_of_the_contract_never_leaves(stage: Stage) -> None:
    before = len(stage.broker.heard)
    with pytest.raises(OutOfContract, match="job_id"):
        stage.web.link.ask(client.JobReply, client.Get, job_id="no id", full=False)
    assert [type(asked) for asked in stage.broker.heard[before:] if not isinstance(asked, client.Snapshot)] == []


def test_a_refusal_carries_the_brokers_words(stage: Stage) -> None:
    stage.broker.refuse[client.Statistics] = ("full", "too much", 3_000)
    with pytest.raises(BrokerRefused, match="too much") as caught:
        stage.web.link.ask(client.StatisticsReply, client.Statistics)
    assert caught.value.error.retry_after_ms == 3_000


def test_a_refused_contract_ends_every_wait(stage: Stage) -> None:
    stage.broker.silent = True
    asked = gevent.spawn(stage.web.link.ask, client.StatisticsReply, client.Statistics)
    until(lambda: any(isinstance(one, client.Statistics) for one in stage.broker.heard))
    stage.broker.say_to_all(Invalid(code="VERSION", detail="this side speaks CF2", count=1))
    with pytest.raises(BrokerSilent, match="CF2"):
        asked.get(timeout=PATIENCE_S)


def test_too_many_waiting_requests_are_turned_away_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_WAITING", 0)
    with pytest.raises(BrokerSilent, match="too many"):
        stage.web.link.ask(client.StatisticsReply, client.Statistics)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not_found", 404),
        ("conflict", 409),
        ("finished", 409),
        ("invalid", 422),
        ("quota", 429),
        ("full", 503),
        ("something_new", 409),
    ],
)
def test_each_refusal_of_the_broker_has_its_status(stage: Stage, code: str, status: int) -> None:
    stage.broker.refuse[client.Statistics] = (code, "because", 1_500)
    answer = stage.get("/api/v1/stats")
    assert (answer.status, answer.code, answer.json["error"]["message"]) == (status, code, "because")
    assert answer.headers["retry-after"] == "2"
