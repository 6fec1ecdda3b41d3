"""Names and paths that a store's owner wrote cannot leave the directory that the user named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_store import HostileStore
from launching import Launcher

KEY = b"ssh-ed25519 AAAA attacker\n"


@pytest.fixture
def bucket(launcher: Launcher) -> HostileStore:
    return HostileStore(launcher)


@pytest.mark.parametrize("name", ["{victim}/.ssh", "../.ssh", "a/../../.ssh"])
def test_artifacts_are_fetched_below_the_named_directory_only(
    name: str, bucket: HostileStore, launcher: Launcher, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    ssh = {"../.ssh": tmp_path / ".ssh", "a/../../.ssh": tmp_path / ".ssh"}.get(name, victim / ".ssh")
    ssh.mkdir(parents=True)
    (ssh / "authorized_keys").write_bytes(b"mine\n")
    plan = bucket.plan("sql", "--profile", "smoke")
    stage = plan["stages"][0]
    for other in plan["stages"]:
        other["needs"] = {
            role: name.format(victim=victim) if needed == stage["name"] else needed
            for role, needed in other["needs"].items()
        }
    stage["name"] = name.format(victim=victim)
    bucket.add_artifact(stage["key"], {"authorized_keys": KEY})
    run_id = bucket.add_run(plan)
    done = launcher("artifacts", run_id, "--fetch", str(tmp_path / "out"))
    assert (ssh / "authorized_keys").read_bytes() == b"mine\n"
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["../../escaped", "/{home}/escaped"])
def test_a_file_name_in_a_manifest_stays_below_its_artifact(
    name: str, bucket: HostileStore, launcher: Launcher, tmp_path: Path
) -> None:
    plan = bucket.plan("sql", "--profile", "smoke")
    listed = name.format(home=str(tmp_path).strip("/"))
    bucket.add_artifact(plan["stages"][0]["key"], {"card.json": KEY}, names={"card.json": listed})
    run_id = bucket.add_run(plan)
    done = launcher("artifacts", run_id, "--fetch", str(tmp_path / "out"))
    assert not list(tmp_path.rglob("escaped"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_link_below_the_named_directory_is_not_followed(
    bucket: HostileStore, launcher: Launcher, tmp_path: Path
) -> None:
    """What an earlier fetch, or another user, left in the directory does not lead the next one out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    plan = bucket.plan("sql", "--profile", "smoke")
    stage = plan["stages"][0]
    bucket.add_artifact(stage["key"], {"card.json": KEY})
    run_id = bucket.add_run(plan)
    out = tmp_path / "out"
    out.mkdir()
    (out / stage["name"]).symlink_to(outside)
    done = launcher("artifacts", run_id, "--fetch", str(out))
    assert list(outside.iterdir()) == []
    assert done.returncode != 0
