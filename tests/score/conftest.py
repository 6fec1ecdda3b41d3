"""Fixtures of the scorers' tests."""

from pathlib import Path

import pytest
from small_sql_data import SqlData, make


@pytest.fixture
def sql_data(tmp_path: Path) -> SqlData:
    """A data set of its own for each test: its files may be damaged."""
    return make(tmp_path / "data")


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache is neither read nor filled by tests."""
    monkeypatch.setenv("TUNEYARD_CACHE", str(tmp_path_factory.mktemp("cache")))
