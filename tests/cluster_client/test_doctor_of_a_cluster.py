"""`launcher doctor --target cluster`: one row per check, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli import doctor
from tests.cluster_client.api_server import ApiServer, Asked, Reply, listing
from tests.cluster_client.conftest import Clock

Rows = dict[str, list[dict[str, object]]]
Doctor = Callable[..., tuple[int, Rows]]


@pytest.fixture
def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Doctor in this process with a home of its own: its exit code, and its rows by what they are about."""
    for name in ("TUNEYARD_STORE", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, Rows]:
        words = [*arguments, "-o", "json"]
        result = CliRunner().invoke(doctor.command, words, standalone_mode=False, catch_exceptions=False)
        rows: Rows = {}
        for row in json.loads(result.stdout):
            rows.setdefault(row["check"], []).append(row)
        return result.return_value, rows

    return run


def answering(asked: Asked) -> Reply:
    return listing("1") if asked.path.endswith("/jobs") else Reply(body={"major": "1"})


@pytest.mark.usefixtures("kubeconfig")
def test_doctor_reports_a_missing_site_file_for_a_cluster(
    server: ApiServer, examine: Doctor, tmp_path: Path
) -> None:
    server.answer = answering
    code, rows = examine("--target", "cluster")
    [row] = rows["site file"]
    assert code == 21
    assert row["ok"] is False
    assert str(tmp_path / ".config" / "tuneyard" / "site.yaml") in str(row["found"])
    assert "--site FILE" in str(row["advice"])
    assert rows["API server"][0]["ok"] is True


@pytest.mark.usefixtures("kubeconfig")
def test_doctor_reports_site_file_problems_and_still_contacts_the_server(
    server: ApiServer, examine: Doctor, tmp_path: Path
) -> None:
    server.answer = answering
    (tmp_path / "site.yaml").write_text("namespace: Not_One\nqueu: gpus\n")
    code, rows = examine("--target", "cluster", "--site", str(tmp_path / "site.yaml"))
    assert code == 21
    reported = sorted(
        str(row["found"]).partition("site.yaml: ")[2].partition(":")[0] for row in rows["site file"]
    )
    assert reported == ["namespace", "queu"]
    assert [row["ok"] for row in rows["site file"]] == [False, False]
    [row] = rows["API server"]
    assert (row["ok"], server.count("GET", "/version")) == (True, 1)
    assert "site file" in str(rows["store"][0]["found"])


@pytest.mark.usefixtures("kubeconfig")
@pytest.mark.parametrize("named", [True, False])
def test_doctor_rejects_a_directory_store_for_a_cluster(
    server: ApiServer, examine: Doctor, tmp_path: Path, named: bool
) -> None:
    server.answer = answering
    options = ("--store", str(tmp_path / "mine")) if named else ()
    code, rows = examine("--target", "cluster", *options)
    [row] = rows["store"]
    assert code == 21
    assert row["ok"] is False
    assert "pods cannot reach a directory of this machine" in str(row["found"])
    assert "s3://" in str(row["advice"])


def test_doctor_creates_no_directory(examine: Doctor, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    _, rows = examine("--store", str(place))
    [row] = rows["store"]
    assert row["ok"] is True
    assert f"{place.as_uri()}, does not exist yet" in str(row["found"])
    assert not place.parent.exists()
    place.mkdir(parents=True)
    _, rows = examine("--store", str(place))
    assert "does not exist yet" not in str(rows["store"][0]["found"])
    assert list(place.iterdir()) == []


def test_doctor_reports_an_unwritable_store(examine: Doctor) -> None:
    code, rows = examine("--store", "/dev/null/x")
    [row] = rows["store"]
    assert (code, row["ok"]) == (21, False)
    assert "/dev/null/x: cannot write the store" in str(row["found"])


def test_doctor_needs_no_site_file_for_this_machine(examine: Doctor) -> None:
    _, rows = examine()
    assert [row["ok"] for row in rows["site file"]] == [True]


@pytest.mark.usefixtures("kubeconfig")
def test_doctor_reports_an_unreachable_server_soon(server: ApiServer, examine: Doctor, clock: Clock) -> None:
    url, began_s = server.url, clock.now_s
    server.__exit__()
    _, rows = examine("--target", "cluster")
    server.__enter__()
    [row] = rows["API server"]
    assert row["ok"] is False
    assert str(row["found"]).startswith(url)
    assert "connection refused" in str(row["found"])
    assert clock.now_s - began_s < 10
