"""Every test that is given a broker leaves one whose promises hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.core.invariants import check
from tests.core.broker.given import Given
from tests.core.broker.house import House


@pytest.fixture
def broker() -> Iterator[Given]:
    given = Given()
    yield given
    given.tick()
    check(given.fleet)


@pytest.fixture
def house() -> House:
    return House()
