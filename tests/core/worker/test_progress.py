"""The fraction of a prompt, and the pace of what is said about it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.codec import WORKER_SENDS, decode, encode
from broker.protocol.records import Progress, ProgressKind
from broker.protocol.worker import ProgressReport
from comfyui.workflow import of
from tests.contract.worker.stage import sdxl
from tests.core.worker.world import GRAPH
from worker.core.progress import PREVIEW_BYTES, Meter, Pacing, Reports

KEY = ("00000000-0000-4000-8000-000000000001", 1)
PACING = Pacing(poll_ms=5_000, progress_per_s=10, previews_per_s=4)


def meter(steps: int = 20) -> Meter:
    return Meter(of(sdxl("x", steps=steps)))


def test_a_sampler_weighs_its_steps_and_any_other_node_one() -> None:
    measure = meter()
    assert measure.node("4").fraction == 0.0
    assert measure.node("3").fraction == 1 / 26  # six nodes of one part, and twenty steps
    assert measure.steps("3", 10, 20).fraction == 11 / 26
    assert measure.node("8").fraction == 21 / 26
    assert measure.node_type == "VAEDecode"


def test_cached_nodes_count_for_nothing() -> None:
    measure = meter()
    measure.cached(("4", "6", "7", "5", "nobody", "4"))
    assert measure.steps("3", 20, 20).fraction == 20 / 22


def test_steps_that_come_over_a_link_are_guessed() -> None:
    graph = sdxl("x")
    graph["3"]["inputs"]["steps"] = ["10", 0]
    graph["10"] = {"class_type": "PrimitiveInt", "inputs": {"value": 4}}
    assert Meter(of(graph)).steps("3", 1, 2).fraction == 10 / 27


def test_nodes_that_another_expanded_into_count_as_it() -> None:
    measure = meter()
    measure.steps("3.0.0.2", 10, 20)
    assert measure.node_type == "KSampler"
    assert measure.now(ProgressKind.STEP).fraction == 10 / 26
    assert measure.node("3.0.0.5").fraction == 10 / 26
    assert measure.node("8").fraction == 20 / 26


def test_without_a_workflow_the_node_at_work_is_all_there_is() -> None:
    measure = Meter(None)
    assert measure.node("3").fraction == 0.0
    assert measure.steps("3", 3, 4).fraction == 0.75
    assert measure.of_type("KSampler") == set()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["3", "4", "5", "8", "9", "12", "3.1", "x"]) | st.none(),
            st.floats(0, 2**60),
            st.floats(0, 2**60),
        ),
        max_size=30,
    ),
    st.text(max_size=600),
)
def test_whatever_comfyui_counts_the_fraction_never_falls_and_fits_the_contract(
    steps: list[tuple[str | None, float, float]], text: str
) -> None:
    measure, fraction = meter(), 0.0
    measure.cached(("4", "9"))
    for node, value, most in steps:
        said = measure.steps(node, value, most)
        assert fraction <= said.fraction <= 1.0
        fraction = said.fraction
        report = ProgressReport(
            job_id=KEY[0], attempt=1, serial=1, progress=measure.now(ProgressKind.TEXT, text), media_type="", image=b""
        )
        assert decode(encode(report), WORKER_SENDS) == report


# ---- the pace


def progress(kind: ProgressKind = ProgressKind.STEP, value: int = 0) -> Progress:
    return Progress(kind=kind, node_id="3", node_type="KSampler", value=value, most=20, fraction=0.0, text="")


def values(reports: list[ProgressReport]) -> list[int]:
    return [report.progress.value for report in reports]


def test_at_most_ten_a_second_and_the_last_is_never_lost() -> None:
    reports = Reports(KEY, PACING)
    said = [report for at in range(0, 1_000, 10) for report in reports.progress(progress(value=at), at)]
    assert 9 <= len(said) <= 11
    due_ms = reports.deadline_ms()
    assert due_ms is not None and due_ms <= 1_100
    assert values(reports.due(due_ms)) == [990]
    assert reports.deadline_ms() is None and reports.due(5_000) == []


def test_the_start_is_said_whatever_the_pace() -> None:
    reports = Reports(KEY, PACING)
    assert len(reports.progress(progress(), 0)) == 1
    assert len(reports.progress(progress(ProgressKind.STARTED), 1)) == 1
    assert reports.progress(progress(), 2) == []


def test_previews_have_a_pace_of_their_own() -> None:
    reports = Reports(KEY, PACING)
    said = [
        report
        for at in range(0, 1_000, 50)
        for report in reports.preview(progress(ProgressKind.PREVIEW), "image/jpeg", b"x", at)
    ]
    assert len(said) == 4
    assert len(reports.progress(progress(), 999)) == 1


def test_a_preview_that_had_to_wait_goes_with_what_is_known_by_then() -> None:
    reports = Reports(KEY, PACING)
    reports.preview(progress(ProgressKind.PREVIEW), "image/jpeg", b"x", 0)
    reports.preview(progress(ProgressKind.PREVIEW, 1), "image/jpeg", b"y", 10)
    reports.progress(progress(value=5), 100)
    (said,) = reports.due(250)
    assert (said.progress.kind, said.progress.value, said.image) == (ProgressKind.PREVIEW, 5, b"y")


def test_previews_can_be_switched_off_and_huge_ones_are_dropped() -> None:
    none = Reports(KEY, Pacing(poll_ms=1, progress_per_s=1, previews_per_s=0))
    assert none.preview(progress(), "image/jpeg", b"x", 0) == [] and none.deadline_ms() is None
    some = Reports(KEY, PACING)
    assert some.preview(progress(), "image/png", bytes(PREVIEW_BYTES + 1), 0) == []


def test_serials_grow_and_go_on_above_an_earlier_process() -> None:
    first, second = Reports(KEY, PACING), Reports(KEY, PACING)
    said = [*first.progress(progress(), 5_000), *first.progress(progress(ProgressKind.STARTED), 5_000)]
    assert [report.serial for report in said] == [5_000, 5_001]
    assert second.progress(progress(), 6_000)[0].serial == 6_000


def test_a_workflow_without_any_weight_gives_no_fraction() -> None:
    measure = Meter(of(GRAPH))
    measure.cached(("1", "2"))
    assert measure.node("1").fraction == 0.0
