"""What the fleet page says of a worker, and which workers its first paint holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import web
from tests.core.page import records
from tests.core.page.test_page import Elements
from web.describe import standing
from web.pages import fleet, frame
from web.standing import VERBS, facts
from web.viewer import Viewer
from web.words import ENGLISH

ADMIN, ANN = Viewer("local", True), Viewer("ann", False)
STATIC = Path(web.__path__[0]) / "static"


def told(worker: records.Json, *jobs: records.Json, admin: bool = True) -> records.Json:
    return facts(worker, {job["id"]: job for job in jobs}, ENGLISH, admin=admin)


def shown(*workers: records.Json, viewer: Viewer = ADMIN) -> Elements:
    snapshot = records.snapshot(workers=list(workers))
    return Elements(fleet.page(frame.framed(viewer, ENGLISH, snapshot), snapshot))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "ready"),
        ({"paused": True}, "paused"),
        ({"paused": True, "state": "busy"}, "busy"),
        ({"breaker": {"state": "closed", "why": "", "since_ms": 0}}, "ready"),
        ({"breaker": {"state": "open", "why": "x", "since_ms": 0}, "paused": True}, "open"),
        ({"breaker": {"state": "open", "why": "x", "since_ms": 0}, "state": "lost"}, "lost"),
        ({"stats": records.readings(comfy_alive=False)}, "silent"),
        ({"stats": records.readings(comfy_alive=False), "state": "joined"}, "joined"),
    ],
)
def test_what_keeps_a_worker_from_work_says_more_than_its_being_ready(changes: records.Json, word: str) -> None:
    assert standing(records.worker(**changes)) == word


def test_a_card_tells_what_runs_and_what_is_staged_behind_it() -> None:
    held = [
        {"job_id": "b", "attempt": 1, "phase": "staged"},
        {"job_id": "a", "attempt": 1, "phase": "running"},
        {"job_id": "hidden", "attempt": 1, "phase": "staged"},
    ]
    jobs = records.running(id="a"), records.running(id="b", title="a pier", started_ms=None)
    card = told(records.worker(state="busy", held=held), *jobs)
    assert (card["job"], card["title"], card["bar"]) == ("a", "a lighthouse at dusk", 0.25)
    assert card["doing"] == "KSampler · 5 of 20"
    assert card["staged"] == "Next here: a pier, A job that is not shown here"


def test_readings_are_told_as_far_as_the_machine_has_them() -> None:
    card = told(records.worker())
    assert (card["busy"], card["load"], card["heat"]) == ("97 % busy", 0.97, "64 °C · 300 W")
    assert card["host"] == "44 of 64 GiB RAM · CPU 10 % · 80 GiB free on disk"
    bare = records.readings(gpu_busy=None, gpu_celsius=None, gpu_watts=None, disk_free_bytes=None)
    assert told(records.worker(stats=bare))["host"] == "44 of 64 GiB RAM · CPU 10 %"
    assert (told(records.worker(stats=bare))["busy"], told(records.worker(stats=bare))["heat"]) == ("at rest", "")
    held = [{"job_id": "a", "attempt": 1, "phase": "running"}]
    assert told(records.worker(stats=bare, held=held))["busy"] == "at work"


def test_of_a_worker_that_is_gone_no_reading_is_told() -> None:
    card = told(records.worker(state="lost"))
    assert [card[part] for part in ("busy", "heat", "memory", "host")] == ["", "", "no readings", "no readings"]


def test_models_are_named_by_their_files_and_many_are_counted() -> None:
    card = told(records.worker(resident=[f"checkpoints/sd{n}.v1.safetensors" for n in range(6)]))
    assert card["models"][0] == {"short": "sd0.v1", "name": "checkpoints/sd0.v1.safetensors"}
    assert (len(card["models"]), card["more"]) == (4, "2 more")


def test_rates_are_as_coarse_as_people_need() -> None:
    card = told(records.worker(jobs_per_hour=12.6, speed=0.75, succeeded=40, failed=2))
    assert card["tally"] == "12 an hour · 40 done · 2 failed · 0.8× speed"
    assert told(records.worker(jobs_per_hour=1.0))["tally"] == "1 an hour · 0 done"


def test_a_name_that_others_want_too_says_so_while_its_worker_works_on() -> None:
    card = told(records.worker(contested=True))
    assert card["trouble"] == ENGLISH.say("fleet.contested", name="studio-1")
    assert not told(records.worker(contested=False))["trouble"]


def test_an_open_breaker_says_why_and_can_be_probed() -> None:
    breaker = {"state": "open", "why": "3 jobs in a row failed here", "since_ms": 0}
    card = told(records.worker(breaker=breaker, can={"probe": True, "restart": False}))
    assert card["trouble"] == "Gets no work: 3 jobs in a row failed here"
    assert card["acts"] == {"pause": "", "drain": "", "probe": "", "restart": ENGLISH.say("fleet.why.restart")}
    assert card["doing"] == ""


def test_a_worker_whose_comfyui_never_answered_says_why_and_no_card() -> None:
    why = "no answer from ComfyUI at http://127.0.0.1:8199"
    silent = records.readings(comfy_alive=False, comfy_fault=why, gpu_busy=None, vram_total_bytes=0)
    card = told(records.worker(stats=silent, gpu=records.UNKNOWN_CARD, comfyui_version=""))
    assert (card["badge"], card["trouble"]) == ("no ComfyUI", f"Gets no work: {why}")
    assert (card["card"], card["version"], card["doing"]) == ("card not known", "worker 0.1.0", "")


def test_each_button_that_is_barred_says_why() -> None:
    barred = told(records.worker(), admin=False)["acts"]
    assert barred == dict.fromkeys(("pause", "drain", "restart"), "Only an admin may do this")
    assert told(records.worker(paused=True))["acts"].keys() == {"resume", "drain", "restart"}
    assert told(records.worker(state="draining"))["acts"]["drain"] == "It is leaving already"
    assert set(told(records.worker(state="lost"))["acts"].values()) == {"It is silent: nothing reaches it"}


def test_the_first_paint_of_a_small_fleet_is_cards_the_urgent_ones_first() -> None:
    well = records.worker(name="w10", state="busy"), records.worker(name="w2")
    found = shown(*well, records.worker(name="z", state="lost"))
    assert [attrs["data-worker"] for attrs in found.with_attribute("data-worker")] == ["z", "w2", "w10", "", ""]
    assert "hidden" not in found.by_id("cards") and "hidden" in found.by_id("table")
    assert "hidden" in found.by_id("no-workers")


def test_the_first_paint_of_a_large_fleet_is_the_rows_of_a_screen() -> None:
    found = shown(*(records.worker(name=f"w{n}") for n in range(1_000)))
    assert len(found.with_attribute("data-worker")) == fleet.ROWS + 2
    assert "hidden" in found.by_id("cards") and "hidden" not in found.by_id("table")


def test_without_a_worker_the_page_says_how_to_start_one() -> None:
    found = shown()
    assert "hidden" not in found.by_id("no-workers") and "hidden" in found.by_id("tools")


def test_who_is_no_admin_finds_every_button_barred() -> None:
    found = shown(records.worker(), viewer=ANN)
    buttons = [attrs for attrs in found.with_attribute("data-act") if "hidden" not in attrs]
    assert all(attrs["aria-disabled"] == "true" and attrs["title"] for attrs in buttons)
    assert "aria-disabled" in found.by_id("hold")
    assert "aria-disabled" not in shown(records.worker()).by_id("hold")


def test_server_and_browser_order_and_act_alike() -> None:
    roster, script = (STATIC / "roster.js").read_text(), (STATIC / "standing.js").read_text()
    assert re.findall(r"\w+", roster.partition("URGENCY = [")[2].partition("]")[0]) == list(fleet.URGENCY)
    assert re.findall(r"\w+", script.partition("VERBS = [")[2].partition("]")[0]) == list(VERBS)
    assert f"const CARDS = {fleet.CARDS};" in (STATIC / "fleet.js").read_text()
    assert set(re.findall(r"^  (\w+): \(", roster, re.M)) == set(fleet.SORTS)
