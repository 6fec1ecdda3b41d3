"""Where a test's store is: one interface to a directory and to a bucket of each server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from s3_servers import Server

from launcher.store import DirectoryStore, Store
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store
from launcher.store.s3_client import Client

SERVERS = ("moto", "rclone", "versitygw")
#: Small parts, so that small files have several; short times, so that faults end soon.
QUICK: dict[str, float] = {
    "connect_timeout_s": 2,
    "read_timeout_s": 10,
    "call_timeout_s": 40,
    "patience_s": 6,
    "first_contact_s": 2,
    # Enough for two busy processors: a writer may be stopped for a quarter of it.
    "settle_s": 8.0,
    "part_bytes": 5 << 20,
    "small_file_bytes": 64 << 10,
    "pack_bytes": 256 << 10,
}


@dataclass
class Place:
    """Where one test's store is, and how to come to it from several machines."""

    kind: str
    directory: Path
    endpoint: str = ""
    bucket: str = ""
    limits: dict[str, float] = field(default_factory=lambda: dict(QUICK))
    _machines: int = 0

    @property
    def is_s3(self) -> bool:
        return self.kind != "directory"

    @property
    def address(self) -> S3Address:
        return S3Address(self.bucket, "some/prefix", endpoint_url=self.endpoint).with_limits(**self.limits)

    def open(self) -> Store:
        return S3Store(self.address) if self.is_s3 else DirectoryStore(self.directory / "store")

    def elsewhere(self) -> Store:
        """The same store as a machine sees it that has never read from it."""
        self._machines += 1
        with machine(self.directory / f"machine-{self._machines}"):
            return self.open()

    def client(self) -> Client:
        return Client(self.address)

    def names(self) -> list[str]:
        """Every object (or file) there is, without the prefix."""
        if self.is_s3:
            return [stat.key.removeprefix("some/prefix/") for stat in self.client().objects("some/prefix/")]
        root = self.directory / "store"
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def change(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Change stored bytes behind the store's back."""
        if self.is_s3:
            client = self.client()
            got = client.get(f"some/prefix/{key}")
            client.call("put_object", Bucket=self.bucket, Key=f"some/prefix/{key}", Body=change(got.data))
        else:
            path = self.directory / "store" / key
            path.write_bytes(change(path.read_bytes()))


@contextmanager
def machine(directory: Path) -> Iterator[None]:
    """This process as if it ran on a machine of its own: other state, other cache."""
    names = {"XDG_STATE_HOME": directory / "state", "XDG_CACHE_HOME": directory / "cache"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(path) for name, path in names.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def make_place(kind: str, directory: Path, servers: Callable[[str], Server]) -> Place:
    """A fresh bucket on a server of that kind, or a fresh directory."""
    if kind == "directory":
        return Place(kind, directory)
    server = servers(kind)
    place = Place(kind, directory, server.endpoint, f"b-{uuid.uuid4().hex[:12]}")
    place.client().call("create_bucket", Bucket=place.bucket)
    return place


def content_of(store: Store, prefix: str) -> dict[str, bytes]:
    """All files of an artifact, read through the store."""
    artifact = store.open(prefix)
    root = artifact.directory()
    assert {name: artifact.path(name) for name in artifact.manifest.files} == {
        name: root / name for name in artifact.manifest.files
    }
    return {name: (root / name).read_bytes() for name in artifact.manifest.files}


def reason_of(call: Callable[[], Any]) -> Any:
    """The reason of the Failure that `call` must raise."""
    from launcher.outcome import Failure

    with pytest.raises(Failure) as caught:
        call()
    return caught.value.reason
