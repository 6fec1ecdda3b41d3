"""Scores that another user wrote into a shared cache directory change no result."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher

#: What stands before the packed value: nothing in old caches, a keyed digest that the attacker cannot make.
_PREFIXES = (0, 16)


def poison(cache: Path) -> int:
    """Turn every cached "wrong" into "right", as anybody who may write the file can; how many were turned."""
    turned = 0
    with sqlite3.connect(cache) as connection:
        for name, value in connection.execute("SELECT key, value FROM entries").fetchall():
            for size in _PREFIXES:
                try:
                    text = zlib.decompress(value[size:])
                except zlib.error:
                    continue
                changed = text.replace(b'"strict": false', b'"strict": true')
                turned += changed != text
                connection.execute(
                    "UPDATE entries SET value = ? WHERE key = ?",
                    (value[:size] + zlib.compress(changed), name),
                )
    return turned


@pytest.fixture
def shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that other users may write."""
    # The launcher removes TUNEYARD_* of the tests' own environment.
    monkeypatch.setattr(
        Launcher,
        "environment",
        property(
            lambda self, made=Launcher.environment.fget: {**made(self), "TUNEYARD_CACHE": str(tmp_path)}
        ),
    )
    return tmp_path / "score.sqlite"


@pytest.mark.smoke
def test_a_poisoned_cache_changes_neither_a_run_nor_its_verification(
    launcher: Launcher, shared_cache: Path, tmp_path: Path
) -> None:
    def strict(verdict: dict[str, Any]) -> list[float]:
        return [one["measures"]["strict"]["value"] for one in verdict["results"]["contenders"]]

    study = ("submit", "sql", "--profile", "smoke", "--target", "local", "-o", "json")
    honest = launcher.json(*study)
    assert poison(shared_cache) > 0
    again = launcher.json(*study, "--store", str(tmp_path / "other"))
    assert strict(again) == strict(honest) == [0.0, 0.0]
    poison(shared_cache)
    assert launcher("verify", again["run_id"], "--store", str(tmp_path / "other")).returncode == 0


@pytest.mark.smoke
def test_verify_finds_a_run_whose_scores_came_from_a_poisoned_cache(
    launcher: Launcher, shared_cache: Path
) -> None:
    """The run's own user may have a cache that was poisoned with their rights: verify does not read it."""
    verdict = launcher.json("submit", "sql", "--profile", "smoke", "--target", "local", "-o", "json")
    with sqlite3.connect(shared_cache) as connection:
        connection.execute("UPDATE entries SET value = x'00'")
    done = launcher("verify", verdict["run_id"])
    assert done.returncode == 0
    assert "cached scores" not in done.stderr
