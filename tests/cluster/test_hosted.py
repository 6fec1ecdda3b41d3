"""A hosted contender as Jobs, rehearsed inside its stages: killed pods cause no second fine-tuning job."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher

from .faults import kill, succeeds
from .processes import wait_for
from .studies import RUN_LIMIT_S, ClusterUser, MakeUser

pytestmark = pytest.mark.cluster

STUDY = ("submit", str(Path(__file__).with_name("hosted.yaml")), "-o", "json")


@pytest.mark.usefixtures("own_node")
def test_a_rehearsed_contender_killed_in_tune_and_predict_gives_what_a_laptop_gives(
    make_user: MakeUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = Launcher(tmp_path / "laptop")
    laptop.home.mkdir()
    expected: dict[str, Any] = laptop.json(*STUDY, "--target", "local", timeout_s=RUN_LIMIT_S)
    user = make_user()
    submitted = user.start(*STUDY)
    store = user.open_store(monkeypatch)
    work = f"runs/{expected['run_id']}/work/tune-hosted-s1"

    def saved() -> bool:
        """Whether the rehearsal server has saved its state: the fine-tuning job exists."""
        areas = [f"{work}/{key}" for key in store.list(work)]
        return any(store.exists(f"{area}/{name}") for area in areas for name in store.list(area))

    wait_for("a snapshot of tune-hosted-s1", saved, RUN_LIMIT_S / 3)
    kill(user, user.running_pod("tune-hosted-s1"))
    kill(user, user.running_pod("predict-hosted-s1"))
    verdict = succeeds(user, submitted, expected)
    hosted = verdict["results"]["contenders"][2]
    assert (hosted["model"], hosted["rehearsed_by"]) == ("gpt-3.5-turbo-0613", "random-llama")
    for stage in ("tune-hosted-s1", "predict-hosted-s1"):
        pods = user.stage_pods(stage)
        assert sorted(pod["metadata"]["labels"]["tuneyard.dev/try"] for pod in pods) == ["1", "2"]
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {user.images["trainer"]}
    assert jobs_made(user, verdict["run_id"]) == 1


def jobs_made(user: ClusterUser, run_id: str) -> int:
    """The number of fine-tuning jobs that the service inside the stage has created."""
    out = user.home / "artifacts"
    assert user("artifacts", run_id, "--stage", "tune", "--fetch", str(out)).returncode == 0
    [database] = out.rglob("rehearsal.sqlite")
    with sqlite3.connect(database) as connection:
        [(count,)] = connection.execute("SELECT value FROM counters WHERE name LIKE '%jobs-created'")
    return int(count)
