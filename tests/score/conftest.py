"""Fixtures of the scorers' tests."""

from pathlib import Path

import pytest
from small_sql_data import SqlData, make


@pytest.fixture
def sql_data(tmp_path: Path) -> SqlData:
    """A data set of its own for each test: its files may be damaged."""
    return make(tmp_path / "data")
