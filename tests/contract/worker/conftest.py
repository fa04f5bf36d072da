"""A broker's stand-in for each test; leaving a test ends it with its sockets and threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.worker.stage import BrokerStandIn


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerStandIn]:
    stand_in = BrokerStandIn(tmp_path / "files")
    yield stand_in
    stand_in.close()
