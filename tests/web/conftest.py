"""These tests run in a process that gevent has patched from its first line, as the web process is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent import monkey

PATCHED = monkey.is_module_patched("socket")
if not PATCHED:
    collect_ignore_glob = ["*"]


def pytest_report_header() -> str:
    return "" if PATCHED else "tests/web left out: run `python -m gevent.monkey --module pytest tests/web`"


if PATCHED:
    from tests.web.stage import Stage, staged

    @pytest.fixture
    def stage() -> Iterator[Stage]:
        """A web process on its own, with an empty broker behind it."""
        with staged() as made:
            yield made

    @pytest.fixture
    def ready_stage() -> Iterator[Stage]:
        """A web process whose fleet has a worker that can do what the template asks."""
        with staged() as made:
            made.with_worker()
            yield made
