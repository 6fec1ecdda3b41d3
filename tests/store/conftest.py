"""Stores on every backend: a directory and each S3 server that is installed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from places import SERVERS, Place, make_place
from s3_servers import ACCESS_KEY, SECRET_KEY, Server, serve


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Starts a server of a kind once per test process."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def get(kind: str) -> Server:
            if kind not in running:
                running[kind] = stack.enter_context(serve(kind, tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield get


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of its own for every test, and the test servers' credentials."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "machine-0" / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine-0" / "cache"))


@pytest.fixture(params=["directory", *SERVERS])
def place(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]) -> Place:
    return make_place(request.param, tmp_path, servers)


@pytest.fixture(params=SERVERS)
def s3_place(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]) -> Place:
    return make_place(request.param, tmp_path, servers)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Writes files into a fresh directory, for a commit to consume."""

    def write(content: dict[str, bytes]) -> Path:
        directory = tmp_path / f"files-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        for name, data in content.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        return directory

    return write
