"""Fixtures of the scorers' tests."""

from pathlib import Path

import pytest
from hypothesis import settings
from small_sql_data import SqlData, make

#: A busy machine exceeds hypothesis' default of 200 ms.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture
def sql_data(tmp_path: Path) -> SqlData:
    """A new data set for each test, which may damage its files."""
    return make(tmp_path / "data")


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor write the user's cache."""
    monkeypatch.setenv("TUNEYARD_CACHE", str(tmp_path_factory.mktemp("cache")))
