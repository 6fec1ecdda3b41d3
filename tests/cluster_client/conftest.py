from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from launcher.targets.cluster import connection
from launcher.targets.cluster.client import Cluster
from tests.cluster_client.api_server import ApiServer, Reply

TOKEN = "eyJ-a-secret-token"


class Clock:
    """A fake of the module `time` for connections: sleeping takes no time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(connection, "time", made)
    return made


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(lambda _: Reply(404, {})) as running:
        yield running


@pytest.fixture
def kubeconfig(tmp_path: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig for `server`, with a token, its context's namespace being "team"."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": server.url}}],
                "users": [{"name": "me", "user": {"token": TOKEN}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}
                ],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def connect(kubeconfig: Path) -> Callable[..., Cluster]:  # noqa: ARG001
    """Connects to `server`, patient for two seconds instead of a minute."""

    def connected(timeout_s: float = 2.0) -> Cluster:
        return Cluster.connect(timeout_s=timeout_s)

    return connected
