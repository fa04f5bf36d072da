"""Orders for faults: what is taken, and how often each strikes."""

from typing import Any

import pytest

from comfyui.simulator.mischief import KINDS, BadMischief, Mischief


def test_a_fault_strikes_as_often_as_ordered() -> None:
    mischief = Mischief()
    mischief.order({"kind": "oom", "times": 2})
    assert [mischief.strike("oom") is not None for _ in range(3)] == [True, True, False]


def test_null_means_for_ever_until_lifted() -> None:
    mischief = Mischief()
    mischief.order({"kind": "oom", "times": None})
    assert all(mischief.strike("oom") is not None for _ in range(20))
    mischief.lift()
    assert mischief.strike("oom") is None


def test_options_are_filled_in_and_matched() -> None:
    mischief = Mischief()
    mischief.order({"kind": "die", "at": "saved"})
    mischief.order({"kind": "slow", "seconds": 0.5})
    assert mischief.strike("die", at="start") is None
    assert mischief.strike("die", at="saved") == {"at": "saved"}
    assert mischief.strike("slow") == {"route": "/prompt", "seconds": 0.5}


def test_faults_of_one_kind_strike_in_the_order_given() -> None:
    mischief = Mischief()
    mischief.order({"kind": "huge", "bytes": 1})
    mischief.order({"kind": "huge", "bytes": 2})
    assert [mischief.strike("huge"), mischief.strike("huge")] == [{"bytes": 1}, {"bytes": 2}]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ([], "kind must be one of die, hang"),
        ({"kind": "explode"}, "kind must be one of die, hang"),
        ({"kind": "die", "at": "noon"}, "at must be one of start, mid, saved"),
        ({"kind": "die", "route": "/x"}, "die has no option 'route'"),
        ({"kind": "oom", "times": 0}, "times must be a positive whole number or null"),
        ({"kind": "oom", "times": "2"}, "times must be a positive whole number or null"),
    ],
)
def test_a_bad_order_says_what_would_do(wish: Any, said: str) -> None:
    with pytest.raises(BadMischief, match=said):
        Mischief().order(wish)


def test_every_kind_can_be_ordered_plainly() -> None:
    mischief = Mischief()
    for kind in KINDS:
        mischief.order({"kind": kind})
    assert [waiting["kind"] for waiting in mischief.waiting()] == list(KINDS)
