"""Fixtures for the tests of the hosted side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving import Server


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers and kills them when the test ends."""
    made: list[Server] = []

    def make(**options: Any) -> Server:
        one = Server(tmp_path / f"server{len(made)}", options.pop("keys", {"sk-test-one": "one"}), **options)
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.kill()
