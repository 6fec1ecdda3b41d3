"""A secret that cannot be used as it is does not end up in a message."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from launching import Launcher

from tests.cluster_client.api_server import ApiServer, Asked, Reply

TOKEN = "eyJ-a-secret-token"


def version(_: Asked) -> Reply:
    return Reply(200, {"major": "1", "minor": "35"})


def kubeconfig(directory: Path, url: str, user: dict[str, str]) -> Path:
    path = directory / "kubeconfig"
    context = {"cluster": "here", "user": "me", "namespace": "team"}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": url}}],
                "users": [{"name": "me", "user": user}],
                "contexts": [{"name": "here", "context": context}],
            }
        )
    )
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \n\n"])
def test_a_token_file_that_ends_in_a_newline_works_as_with_kubectl(
    ending: str, launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_bytes(f"{TOKEN}{ending}".encode())
    with ApiServer(version) as server:
        path = kubeconfig(tmp_path, server.url, {"tokenFile": str(tmp_path / "token")})
        monkeypatch.setenv("KUBECONFIG", str(path))
        done = launcher("doctor", "--target", "cluster")
        asked = list(server.asked)
    assert TOKEN not in done.stdout + done.stderr
    assert {one.headers.get("Authorization") for one in asked} == {f"Bearer {TOKEN}"}


def test_a_token_with_a_line_break_inside_is_refused_without_being_quoted(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n{TOKEN}2\n")
    with ApiServer(version) as server:
        path = kubeconfig(tmp_path, server.url, {"tokenFile": str(tmp_path / "token")})
        monkeypatch.setenv("KUBECONFIG", str(path))
        done = launcher("doctor", "--target", "cluster")
    said = done.stdout + done.stderr
    assert TOKEN not in said
    assert done.returncode != 0
    assert "the token" in said
    assert "line break" in said
