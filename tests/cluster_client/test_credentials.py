"""Credentials: found as kubectl finds them, refreshed when they expire, never printed."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.outcome import Failure, Reason
from launcher.targets.cluster import connection
from launcher.targets.cluster.client import Cluster
from tests.cluster_client.api_server import ApiServer, Asked, Reply, listing, status
from tests.cluster_client.conftest import TOKEN


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))


def plugin(path: Path, script: str) -> dict[str, Any]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}}


def credential(token: str) -> str:
    return (
        'echo \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{{"token":"{token}"}}}}\''
    )


@pytest.mark.usefixtures("kubeconfig")
def test_namespace_comes_from_the_context() -> None:
    assert Cluster.connect().namespace == "team"
    assert Cluster.connect("other").namespace == "other"


def test_named_context_is_used(kubeconfig: Path) -> None:
    edit(
        kubeconfig,
        lambda c: c["contexts"].append({"name": "b", "context": {"cluster": "here", "user": "me"}}),
    )
    assert Cluster.connect(context="b").namespace == "default"
    with pytest.raises(Failure, match="nosuch"):
        Cluster.connect(context="nosuch")


def test_unknown_context_lists_the_known_ones(kubeconfig: Path) -> None:
    edit(kubeconfig, lambda c: c["contexts"].append({"name": "prod", "context": {"cluster": "here"}}))
    with pytest.raises(Failure) as caught:
        Cluster.connect(context="nope")
    assert caught.value.reason is Reason.USAGE
    assert "no context 'nope' in the kubeconfig, which has here, prod" in caught.value.text()
    assert "--context here" in caught.value.next_step
    assert str(kubeconfig) in caught.value.where


def test_unknown_context_of_an_empty_kubeconfig(kubeconfig: Path) -> None:
    edit(kubeconfig, lambda c: c.pop("contexts"))
    with pytest.raises(Failure, match="no context 'nope' in the kubeconfig, which has none"):
        Cluster.connect(context="nope")


def test_missing_kubeconfig_is_unauthorized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(Failure, match="there is no kubeconfig") as caught:
        Cluster.connect()
    assert caught.value.reason is Reason.UNAUTHORIZED


@pytest.mark.parametrize(
    "text",
    [
        f"users: [{{name: me, user: {{token: {TOKEN}}}}}]\ncontexts: [{{name: here",
        f"current-context: here\ncontexts: [{{name: here, token: {TOKEN}}}]\nclusters: []\nusers: []\n",
        f"current-context: here\ncontexts: {TOKEN}\n",
        f"- {TOKEN}\n",
        f"{TOKEN}\n",
        "",
    ],
)
def test_broken_kubeconfig_error_repeats_no_content(kubeconfig: Path, text: str) -> None:
    kubeconfig.write_text(text)
    with pytest.raises(Failure) as caught:
        Cluster.connect()
    assert caught.value.reason is Reason.UNAUTHORIZED
    assert str(kubeconfig) in caught.value.where
    assert TOKEN not in caught.value.text()


def test_exec_plugin_provides_the_token(server: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    user = plugin(tmp_path / "login", credential("from-plugin"))
    edit(kubeconfig, lambda c: c["users"][0].update(user=user))
    server.answer = lambda _: listing("1")
    Cluster.connect().list("Pod")
    assert server.asked[0].headers["Authorization"] == "Bearer from-plugin"


def test_failed_exec_plugin_is_named(kubeconfig: Path, tmp_path: Path) -> None:
    user = plugin(tmp_path / "login", "echo 'please log in' >&2; exit 3")
    edit(kubeconfig, lambda c: c["users"][0].update(user=user))
    with pytest.raises(Failure) as caught:
        Cluster.connect()
    assert "please log in" in caught.value.text()


def test_expired_token_is_refreshed_once(
    server: ApiServer, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RENEWAL_INTERVAL_S", 0.0)

    def answer(asked: Asked) -> Reply:
        fresh = asked.headers["Authorization"] == "Bearer fresh"
        return listing("1") if fresh else status(401, "Unauthorized", "Unauthorized")

    server.answer = answer
    cluster = Cluster.connect()
    edit(kubeconfig, lambda c: c["users"][0].update(user={"token": "fresh"}))
    assert cluster.list("Pod") == []
    edit(kubeconfig, lambda c: c["users"][0].update(user={"token": "stale"}))
    server.answer = lambda _: status(401, "Unauthorized", "Unauthorized")
    with pytest.raises(Failure) as caught:
        cluster.list("Pod")
    assert caught.value.reason is Reason.UNAUTHORIZED
    assert len(server.asked) == 4
