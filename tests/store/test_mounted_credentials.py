"""Credentials mounted as files: taken before any other, taken up when they are replaced, never shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from places import Place, make_place
from s3_servers import ACCESS_KEY, SECRET_KEY, Server

from launcher.outcome import Failure, Reason
from launcher.store import mounted_credentials
from launcher.store.s3 import S3Store


class Secret:
    """A directory as Kubernetes mounts a Secret: links into a directory that is swapped whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0

    def write(self, **values: str) -> None:
        self._count += 1
        whole = self.directory / f"..{self._count}"
        whole.mkdir(parents=True)
        for name, value in values.items():
            (whole / name).write_text(f"{value}\n")
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        staged = self.directory / "..data_tmp"
        staged.symlink_to(whole.name)
        staged.replace(self.directory / "..data")


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secret:
    made = Secret(tmp_path / "secret")
    monkeypatch.setenv(mounted_credentials.VARIABLE, str(made.directory))
    return made


@pytest.fixture
def rclone(tmp_path: Path, servers: Callable[[str], Server]) -> Place:
    """The server that really checks signatures."""
    return make_place("rclone", tmp_path, servers)


def test_mounted_credentials_win_over_the_environment(
    rclone: Place, secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something-else")
    secret.write(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    assert S3Store(rclone.address).put_json("runs/a", 1)


def test_a_rotated_secret_is_used_by_the_next_request(rclone: Place, secret: Secret) -> None:
    secret.write(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    store = S3Store(rclone.address)
    assert store.put_json("runs/a", 1)
    # As after a rotation: what the process holds is refused, what is mounted by now is right.
    secret.write(access_key=ACCESS_KEY, secret_key="revoked-before-it-was-used")
    store.client._client = store.client._connect(hasty=False)
    secret.write(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    assert store.get_json("runs/a") == 1


def test_credentials_are_refreshable_and_read_again_in_time(secret: Secret) -> None:
    secret.write(access_key="first", secret_key="a")
    held = mounted_credentials.Provider(lambda: mounted_credentials.read(secret.directory)).load()
    assert held.access_key == "first"
    secret.write(access_key="second", secret_key="b", session_token="t")
    assert held.get_frozen_credentials().access_key == "first"
    held._expiry_time -= timedelta(seconds=6 * 60)
    frozen = held.get_frozen_credentials()
    assert (frozen.access_key, frozen.secret_key, frozen.token) == ("second", "b", "t")


def test_a_missing_key_is_named_and_no_value_is_shown(secret: Secret) -> None:
    secret.write(access_key="hunter2", secret_key="")
    with pytest.raises(Failure) as caught:
        mounted_credentials.read(secret.directory)
    assert caught.value.reason is Reason.STORE_FAILED
    assert "secret_key" in caught.value.what
    assert "access_key" not in caught.value.what
    assert "hunter2" not in caught.value.text()


def test_repr_of_keys_shows_no_secret() -> None:
    assert "hunter2" not in repr(mounted_credentials.Keys("hunter2", "hunter2", "hunter2"))
