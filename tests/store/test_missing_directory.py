"""A commit of a directory that is not there publishes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import Place

from launcher.outcome import Failure


def test_a_missing_directory_is_refused_before_anything_is_written(place: Place, tmp_path: Path) -> None:
    store = place.open()
    with pytest.raises(Failure) as refused:
        store.commit("stages/k", tmp_path / "nothing", {})
    assert "nothing" in refused.value.text()
    assert not place.elsewhere().exists("stages/k")
    assert store.leftovers() == ()
    (tmp_path / "nothing").mkdir()
    store.commit("stages/k", tmp_path / "nothing", {})
    assert place.elsewhere().open("stages/k").manifest.files == {}
