"""Measures, goals and the table: what is told of a run."""

from __future__ import annotations

import dataclasses
import math

import pytest

from scripts.laboratory.arena import Ran, Run
from scripts.laboratory.judge import OURS, judge
from scripts.laboratory.measures import Measures, fairness, jain, measure, median
from scripts.laboratory.table import BEGIN, COLUMNS, END, markdown, renewed, text
from scripts.laboratory.trials import OTHERS, trial
from tests.core.lab.fleets import PLAIN, SLOW, job, scenario

GOOD = Measures(
    makespan_s=100, bound_s=95, wait_p50_s=1, wait_p95_s=2, done_p50_s=3, done_p95_s=40, rest_p95_s=20, loads=5,
    busy=0.9, jain=0.99, tail_s=0, wasted_s=0,
)  # fmt: skip


def ran(number: int, began_s: int, *, owner: str = "ann", card: int = 0) -> Ran:
    return Ran(job(number, owner=owner), card, began_s * 1_000, began_s * 1_000 + 10_000)


def run_of(*rows: Ran) -> Run:
    made = scenario([row.job for row in rows], (PLAIN, SLOW))
    return Run(made, list(rows), loads=1, busy_ms=20_000, wasted_ms=500, resubmitted=0)


def test_jain_is_one_for_equals_and_a_share_for_one_who_takes_all() -> None:
    assert jain([2, 2, 2]) == pytest.approx(1)
    assert jain([5, 0, 0, 0]) == pytest.approx(1 / 4)


def test_fairness_looks_at_the_time_in_which_all_had_work() -> None:
    fair = run_of(ran(0, 0), ran(1, 0, owner="bob"), ran(2, 10), ran(3, 10, owner="bob"), ran(4, 20))
    assert fairness(fair) == pytest.approx(1)
    unfair = run_of(ran(0, 0), ran(1, 10), ran(2, 20), ran(3, 30, owner="bob"))
    assert fairness(unfair) == pytest.approx(1 / 2)
    assert math.isnan(fairness(run_of(ran(0, 0))))


def test_a_run_is_measured() -> None:
    found = measure(run_of(ran(0, 0), ran(1, 10), ran(2, 2, card=1)), 15_000)
    assert (found.makespan_s, found.bound_s, found.wait_p50_s, found.done_p95_s) == (20, 15, 2, 20)
    assert (found.busy, found.tail_s, found.wasted_s) == (0.5, 0, 0.5)
    assert measure(run_of(ran(0, 0), ran(1, 20, card=1)), 0).tail_s == 20


def test_what_all_but_the_greediest_wait_is_told_apart() -> None:
    found = measure(run_of(ran(0, 50), ran(1, 70), ran(2, 0, owner="bob"), ran(3, 10, owner="eve")), 0)
    assert (found.done_p95_s, found.rest_p95_s) == (80, 20)
    assert math.isnan(measure(run_of(ran(0, 0), ran(1, 5, owner="bob")), 0).rest_p95_s), "nobody has more than others"


def test_medians_are_taken_figure_by_figure() -> None:
    many = [dataclasses.replace(GOOD, loads=loads) for loads in (1, 9, 4)]
    assert median(many).loads == 4


def test_goals_are_held_against_the_best_of_the_others() -> None:
    slower = dataclasses.replace(GOOD, done_p95_s=60, makespan_s=130)
    figures = judge({"mixed-speed": {OURS: GOOD, "SWARM": slower, "HORDE": slower}}, tuple(OTHERS))
    assert [figure.holds for figure in figures] == [True] * 4
    assert not any(f.holds for f in judge({"mixed-speed": {OURS: slower, "SWARM": GOOD}}, tuple(OTHERS)))
    unfair = dataclasses.replace(GOOD, jain=0.9)
    assert [f.holds for f in judge({"greedy-user": {OURS: unfair}}, ())] == [True, False]


def test_where_a_fair_share_costs_completion_is_held_against_what_is_fair_and_that_of_the_rest_against_all() -> None:
    fair = dataclasses.replace(GOOD, rest_p95_s=30)
    quick = dataclasses.replace(GOOD, done_p95_s=20, rest_p95_s=40)
    figures = judge({"unequal-users": {OURS: GOOD, "FAIR_TURNS": fair, "HORDE": quick}}, tuple(OTHERS))
    assert [figure.value for figure in figures] == [1, 1, 20 / 30]


def test_the_table_has_every_figure() -> None:
    found = {"greedy-user": {OURS: GOOD, "HORDE": dataclasses.replace(GOOD, jain=math.nan)}}
    tables = markdown(found, judge(found, tuple(OTHERS)), "On a day.")
    assert all(heading in text(found) and heading in tables for heading in COLUMNS)
    assert "| HORDE | 100.0 |" in tables
    assert "On a day." in tables and "makespan / lower bound" in tables
    page = f"# A page\n\n{BEGIN}\nold\n{END}\n\nmore\n"
    assert renewed(page, tables) == f"# A page\n\n{BEGIN}\n\n{tables}\n{END}\n\nmore\n"
    with pytest.raises(ValueError, match="the page has no"):
        renewed("# A page", tables)


@pytest.mark.parametrize("name", ["same-cards", "vram-mixed"])
def test_a_scenario_runs_under_every_policy(name: str) -> None:
    found = trial(name, (*OTHERS, OURS), seed=1)
    assert found.keys() == {*OTHERS, OURS}
    assert all(m.bound_s <= m.makespan_s * 1.001 and 0 < m.busy <= 1 for m in found.values())
