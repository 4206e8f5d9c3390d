"""Notebooks under test write their runs into a folder that goes with the test session, never into `runs/`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator

import pytest

RUNS = tempfile.TemporaryDirectory(prefix="labkit-notebooks-")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Set LABKIT_RUNS while a kernel starts, which is when it takes its environment."""
    before = os.environ.get("LABKIT_RUNS")
    os.environ["LABKIT_RUNS"] = RUNS.name
    try:
        return (yield)
    finally:
        if before is None:
            del os.environ["LABKIT_RUNS"]
        else:
            os.environ["LABKIT_RUNS"] = before
