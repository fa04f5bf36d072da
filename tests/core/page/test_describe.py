"""The words of a card; and that the browser finds the same ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from broker.protocol.records import JobState, Reason, Why, WorkerState
from tests.core.page import records
from web import describe, groups
from web.describe import GIB
from web.pages.gallery import shot
from web.standing import facts
from web.words import ENGLISH, LANGUAGES, Words

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (12_480, "12.4 s"),
        (125_999, "2 min 5 s"),
        (3_840_000, "1 h 4 min"),
    ],
)
def test_a_duration_is_as_coarse_as_people_need(ms: int, text: str) -> None:
    assert describe.duration(ms, ENGLISH) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0.0"), (8 * GIB - 1, "7.9"), (10 * GIB, "10"), (24_564 << 20, "24")]
)
def test_memory_is_told_in_gibibytes(size_bytes: int, text: str) -> None:
    assert describe.gibibytes(size_bytes) == text


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (records.job(), "Waiting for a free worker"),
        (records.job(attempt=1, burnt=1), "Waiting to be tried again"),
        (records.job(attempt=1), "Waiting for a free worker"),
        (records.running(state="leased", phase="staging", started_ms=None), "Next on studio-1"),
        (records.running(phase="staged", started_ms=None), "Next on studio-1"),
        (records.running(progress=None), "Loading on studio-1"),
        (records.running(), "KSampler · 5 of 20"),
        (records.running(phase="finishing"), "Saving the picture"),
        (records.running(state="cancelling"), "Stopping on studio-1"),
        (records.succeeded(), "Made by studio-1"),
        (records.failed(), "Failed on studio-1"),
        (records.failed(worker=None), "Failed"),
    ],
)
def test_a_job_says_where_it_is(job: records.Json, text: str) -> None:
    assert describe.status(job, ENGLISH) == text


def test_a_long_node_may_speak_for_itself() -> None:
    said = {**records.running()["progress"], "kind": "text", "text": "denoising panel 2 of 6"}
    assert describe.status(records.running(progress=said), ENGLISH) == "denoising panel 2 of 6"


def test_a_failure_names_its_node_and_what_to_make_of_it() -> None:
    card = describe.job_card(records.failed(), ENGLISH)
    assert (card["problem"], card["node"]) == ("A node stopped with an error", "KSampler, node 3")
    assert card["can_retry"] and not card["can_cancel"]


def test_a_reason_from_a_newer_broker_is_still_a_failure() -> None:
    error = {**records.failed()["error"], "reason": "from_the_future"}
    assert describe.job_card(records.failed(error=error), ENGLISH)["problem"] == "It failed"


def test_only_an_attempt_that_failed_makes_the_next_one_another_try() -> None:
    assert describe.job_card(records.running(attempt=3), ENGLISH)["attempt"] == ""
    assert describe.job_card(records.running(attempt=3, burnt=1), ENGLISH)["attempt"] == "try 2"
    assert describe.job_card(records.job(attempt=1, burnt=1), ENGLISH)["attempt"] == ""


def test_saved_pictures_come_before_previews_of_them() -> None:
    saved, temp = records.output(url="/saved"), records.output(url="/temp", kind="temp")
    assert describe.job_card(records.succeeded(outputs=[temp, saved]), ENGLISH)["picture"] == "/saved"
    assert describe.job_card(records.succeeded(outputs=[temp]), ENGLISH)["picture"] == "/temp"


def test_the_bar_shows_only_while_something_moves() -> None:
    assert describe.job_card(records.running(), ENGLISH)["bar"] == 0.25
    assert describe.job_card(records.succeeded(), ENGLISH)["bar"] is None
    assert describe.job_card(records.job(), ENGLISH)["bar"] is None


def test_what_is_made_stands_before_what_is_done_and_the_last_done_first() -> None:
    first, last = records.succeeded(id="a", finished_ms=5), records.succeeded(id="b", finished_ms=9)
    live = records.running(id="c")
    ranked = sorted((first, last, live), key=lambda job: groups.place([job]))
    assert [job["id"] for job in ranked] == ["c", "b", "a"]
    assert {groups.place([job])[0] for job in ranked} == {"gallery"}


def test_the_queue_is_served_by_priority_then_age() -> None:
    old, new, urgent = (
        records.job(id="old", created_ms=1),
        records.job(id="new", created_ms=2),
        records.job(id="urgent", created_ms=3, priority=5),
    )
    assert [j["id"] for j in sorted((new, old, urgent), key=lambda job: groups.place([job]))] == [
        "urgent",
        "old",
        "new",
    ]


def test_a_worker_tells_of_what_runs_before_what_waits_behind_it() -> None:
    held = [
        {"job_id": "next", "attempt": 1, "phase": "staged"},
        {"job_id": "now", "attempt": 1, "phase": "running"},
    ]
    known = {"now": records.running(id="now"), "next": records.running(id="next", title="another")}
    card = describe.worker_card(records.worker(state="busy", held=held), known, ENGLISH)
    assert (card["job"], card["title"], card["percent"]) == ("now", "a lighthouse at dusk", "25 %")
    assert card["next"] == "+1 next"


def test_a_worker_whose_job_this_viewer_may_not_see_is_busy_all_the_same() -> None:
    held = [{"job_id": "theirs", "attempt": 1, "phase": "running"}]
    card = describe.worker_card(records.worker(state="busy", held=held), {}, ENGLISH)
    assert (card["job"], card["title"], card["doing"]) == ("", "A job that is not shown here", "")


def test_a_machine_without_a_card_tells_its_ram() -> None:
    stats = records.readings(vram_total_bytes=0, vram_free_bytes=0)
    assert describe.memory(stats, ENGLISH) == ("44 of 64 GiB RAM", 44 / 64)


def test_a_worker_that_lost_its_comfyui_says_so_and_nothing_that_may_be_over() -> None:
    held = [{"job_id": "a", "attempt": 1, "phase": "running"}, {"job_id": "b", "attempt": 1, "phase": "staged"}]
    silent = records.worker(state="busy", stats=records.readings(comfy_alive=False), held=held)
    card = describe.worker_card(silent, {"a": records.running(id="a")}, ENGLISH)
    assert card["doing"] == "ComfyUI does not answer"
    assert [card[part] for part in ("title", "bar", "percent", "next")] == ["", None, "", ""]


def test_a_worker_names_its_card_and_how_full_it_is_as_long_as_it_is_there() -> None:
    card = describe.worker_card(records.worker(), {}, ENGLISH)
    assert (card["card"], card["memory"]) == ("RTX 4090", "14 of 24 GiB VRAM")
    gone = describe.worker_card(records.worker(state="lost"), {}, ENGLISH)
    assert (gone["card"], gone["memory"], gone["share"]) == ("RTX 4090", "no readings", 0.0)


def test_every_word_of_the_contract_has_a_sentence() -> None:
    wanted = [f"reason.{reason}" for reason in Reason] + [f"state.{state}" for state in JobState]
    wanted += [f"worker.{state}{ending}" for state in WorkerState for ending in ("", ".idle")]
    wanted += [f"why.{why}" for why in Why]
    assert [key for key in wanted if key not in ENGLISH.sentences] == []


XL, VAE = "checkpoints/juggernautXL.safetensors", "vae/sharp.pt"


def decided(why: str, waited_for: str | None, missing: list[str], **changes: Any) -> records.Json:
    def considered(worker: str, load_ms: int, run_ms: int, lacks: list[str]) -> records.Json:
        took = {"load_ms": load_ms, "run_ms": run_ms, "finish_ms": load_ms + run_ms}
        return {"worker": worker, "wait_ms": 0, **took, "missing_models": lacks}

    both = [considered("gpu-2", 0, 5_000, []), considered("gpu-1", 11_000 if missing else 0, 40_000, missing)]
    waited = {"waited_ms": 4_000, "waited_for": waited_for, "instead": "gpu-1"}
    return {"policy": "finish_time", "why": why, "worker": "gpu-2", **waited, "candidates": both, **changes}


@pytest.mark.parametrize(
    ("decision", "english", "chinese"),
    [
        (
            decided("waited_for_models", "gpu-2", [XL]),
            "Waited 4.0 s for gpu-2, which holds juggernautXL; gpu-1 would have loaded it for 11.0 s",
            "等了 4.0 秒，等 gpu-2：它已加载 juggernautXL；换成 gpu-1 要加载 11.0 秒",
        ),
        (
            decided("waited_for_models", "gpu-3", [XL, VAE]),
            "Waited 4.0 s for gpu-2, which holds juggernautXL, sharp; gpu-1 would have loaded it for 11.0 s",
            "等了 4.0 秒，等 gpu-2：它已加载 juggernautXL, sharp；换成 gpu-1 要加载 11.0 秒",
        ),
        (
            decided("waited_for_models", "gpu-2", [XL], instead="gone"),
            "Waited 4.0 s for gpu-2, which holds its models",
            "等了 4.0 秒，等 gpu-2：它已加载所需模型",
        ),
        (
            decided("waited_for_faster", "gpu-2", []),
            "Waited 4.0 s for gpu-2, which has it done sooner; gpu-1 would have needed 40.0 s",
            "等了 4.0 秒，等 gpu-2：它更快完成；换成 gpu-1 需要 40.0 秒",
        ),
        (
            decided("waited_for_faster", "gpu-2", [], candidates=[]),
            "Waited 4.0 s for gpu-2, which has it done sooner",
            "等了 4.0 秒，等 gpu-2：它更快完成",
        ),
        (
            decided("soonest", "gpu-9", []),
            "gpu-2, soonest done; before that it waited 4.0 s for gpu-9, in vain",
            "gpu-2：最快完成；此前等 gpu-9 等了 4.0 秒，没有等到",
        ),
        (decided("soonest", None, [], waited_ms=0), "gpu-2, soonest done", "gpu-2：最快完成"),
        (decided("from_the_future", "gpu-2", []), "", ""),
    ],
)
def test_a_decision_is_a_sentence_that_tells_for_whom_the_job_waited(
    decision: records.Json, english: str, chinese: str
) -> None:
    assert describe.because(decision, ENGLISH) == english
    assert describe.because(decision, LANGUAGES["zh"]) == chinese


def test_counts_leave_out_what_is_nought() -> None:
    assert describe.counts(records.stats(), [], ENGLISH) == ["0 running"]
    found = describe.counts(records.stats(leased=1, running=2, succeeded=12_000), [], ENGLISH)
    assert found == ["3 running", "12,000 done"]


def test_what_the_page_sees_itself_is_counted_before_the_fleet_has_counted_it() -> None:
    jobs = [records.running(), records.running(state="leased"), records.job(), records.running(started_ms=None)]
    assert describe.counts(records.stats(), jobs, ENGLISH) == ["2 running", "2 waiting"]
    assert describe.counts(records.stats(queued=9), jobs, ENGLISH) == ["2 running", "8 waiting"]
    assert describe.counts(records.stats(queued=2, running=5), jobs, ENGLISH) == ["4 running", "3 waiting"]


def test_a_job_that_a_worker_holds_ready_waits() -> None:
    ready, live = records.running(started_ms=None), records.running()
    assert groups.place([ready])[0] == "queue"
    assert groups.place([ready]) < groups.place([records.job(priority=100)])
    assert describe.job_card(ready, ENGLISH)["badge"] == "next"
    assert describe.counts(records.stats(running=2, queued=1), [ready, live], ENGLISH) == ["1 running", "2 waiting"]


def tiles(card: records.Json) -> list[str]:
    return [tile["picture"] for tile in card["tiles"]]


def test_jobs_of_one_submit_are_one_card() -> None:
    done = records.succeeded(id="a", outputs=[records.output(url="/1")])
    live, waiting = records.running(id="b"), records.job(id="c")
    card = shot(records.submitted(done, live, waiting), ENGLISH)
    assert (card["key"], card["open"], card["state"], tiles(card)) == ("group:g", "a", "running", ["/1", "", ""])
    assert (card["bar"], card["aside"]) == ((1 + 0.25) / 3, "41 %")
    finished = shot(records.submitted(done, done), ENGLISH)
    assert (finished["many"], finished["bar"]) == ("2 pictures", None)


def test_a_group_says_how_many_of_it_were_cancelled_and_leaves_their_room_to_the_pictures() -> None:
    done = records.succeeded(id="a", outputs=[records.output(url="/1")])
    dropped = records.job(id="b", state="cancelled", finished_ms=9)
    card = shot(records.submitted(dropped, done), ENGLISH)
    assert (card["status"], tiles(card)) == ("1 of 2 done · 1 cancelled", ["/1"])
    assert tiles(shot(records.submitted(dropped, dropped), ENGLISH)) == [""]


def test_a_card_of_one_job_shows_its_first_pictures() -> None:
    many = [records.output(url=f"/{n}") for n in range(6)]
    card = shot([records.succeeded(outputs=many)], ENGLISH)
    assert (tiles(card), card["many"], card["aside"]) == (["/0", "/1", "/2", "/3"], "6 pictures", "12.4 s")
    assert shot([records.failed(template="")], ENGLISH)["problem"] == "A node stopped with an error"
    assert shot([records.succeeded(template="")], ENGLISH)["status"] == "workflow"


def test_a_group_with_the_id_of_a_job_stands_beside_it() -> None:
    alone = records.succeeded(id="g")
    together = records.submitted(records.succeeded(id="a"), records.succeeded(id="b"))
    assert groups.members([alone, *together]) == [[alone], together]
    assert shot([alone], ENGLISH)["key"] != shot(together, ENGLISH)["key"]


node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def in_the_browser(given_records: list[dict[str, Any]], lang: str) -> Any:
    """The same records, described by the browser's code."""
    run = subprocess.run(
        ["node", HERE / "describe.mjs", lang],
        input=json.dumps(given_records),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def on_the_server(record: dict[str, Any], together: list[records.Json], words: Words) -> Any:
    job, held = record["job"], record["worker"]
    return [
        describe.job_card(job, words, record["at"]),
        list(groups.place([job])),
        list(groups.place(together)),
        groups.group_card(together, words),
        groups.group_card(together[-1:], words),
        [[one["id"] for one in entry] for entry in groups.members([job, {**job, "id": "g"}, *together])],
        describe.worker_card(held, {"known": job}, words),
        describe.counts(record["stats"], [job], words),
        shot([job], words),
        shot(together, words),
        facts(held, {"known": job}, words, admin=job["attempt"] > 0),
    ]


@node
@settings(max_examples=8, phases=[Phase.generate], database=None)
@given(st.data())
def test_server_and_browser_say_the_same(data: st.DataObject) -> None:
    counted = st.builds(records.stats, running=st.integers(0, 10**7), queued=st.integers(0, 10**7))
    places = st.none() | st.integers(1, 200)
    batch: list[dict[str, Any]] = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "job": records.jobs,
                    "worker": records.workers,
                    "stats": counted,
                    "at": places,
                }
            ),
            min_size=20,
            max_size=40,
        )
    )
    together = [records.submitted(*(one["job"] for one in batch[at : at + 6])) for at in range(len(batch))]
    words = data.draw(st.sampled_from(list(LANGUAGES.values())))
    found = in_the_browser([{**one, "together": few} for one, few in zip(batch, together, strict=True)], words.lang)
    for record, few, browser in zip(batch, together, found, strict=True):
        assert browser == json.loads(json.dumps(on_the_server(record, few, words)))
