"""Scores that another user wrote into a shared cache directory change no result."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher

#: Bytes before the packed value: none in old caches, else a keyed digest.
_PREFIXES = (0, 16)


def poison(cache: Path, secret: bytes | None = None) -> int:
    """Turn every cached "wrong" into "right", with the digest that `secret` gives; returns how many were turned."""
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
                packed = zlib.compress(changed)
                mac = value[:size]
                if secret is not None and size:
                    mac = hashlib.blake2b(name + packed, key=secret, digest_size=size).digest()
                connection.execute("UPDATE entries SET value = ? WHERE key = ?", (mac + packed, name))
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
def test_verify_detects_scores_that_came_from_a_cache_poisoned_with_the_users_own_secret(
    launcher: Launcher, shared_cache: Path, tmp_path: Path
) -> None:
    """A program that runs as the user can write what the cache accepts; `verify` reads no cache."""
    study = ("submit", "sql", "--profile", "smoke", "--target", "local", "-o", "json")
    launcher.json(*study)
    secret = launcher.home / ".local" / "share" / "tuneyard" / "score-cache.secret"
    assert poison(shared_cache, secret.read_bytes() if secret.exists() else None) > 0
    poisoned = launcher.json(*study, "--store", str(tmp_path / "other"))
    contenders = poisoned["results"]["contenders"]
    assert [one["measures"]["strict"]["value"] for one in contenders] == [1.0, 1.0]
    done = launcher("verify", poisoned["run_id"], "--store", str(tmp_path / "other"))
    assert done.returncode == 19
    assert "differ" in done.stdout
