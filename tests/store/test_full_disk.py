"""A disk that is really full, on this machine or on the server: reported as such, nothing partial visible, and
everything goes on once there is room."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import QUICK, Place, content_of, machine, make_place, reason_of
from s3_servers import Server, serve

from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store

Files = Callable[[dict[str, bytes]], Path]
MIB = 1 << 20
_LARGE = {"large": random.Random(1).randbytes(13 * MIB), "small": b"small"}


@contextmanager
def small_disk(directory: Path, mib: int) -> Iterator[Path]:
    """A file system of `mib` MiB; skips where this process may not mount one."""
    directory.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tuneyard-tests", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error.strerror}")
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def grow(directory: Path, mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mib}m", str(directory)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


def failure_of_call(call: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        call()
    assert caught.value.where
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize("content", [_LARGE, {f"{n}": os.urandom(100_000) for n in range(99)}])
def test_a_download_to_a_full_disk_fails_and_resumes_when_there_is_room(
    tmp_path: Path, servers: Callable[[str], Server], files: Files, content: dict[str, bytes]
) -> None:
    place: Place = make_place("rclone", tmp_path, servers)
    place.open().commit("stages/k", files(content), {})
    with small_disk(tmp_path / "disk", 6) as disk, machine(disk):
        store = place.open()
        failure = failure_of_call(lambda: store.open("stages/k").directory())
        assert failure.reason is Reason.DISK_FULL
        assert str(disk) in failure.where
        grow(disk, 64)
        assert content_of(store, "stages/k") == content


def test_an_upload_with_a_full_local_disk_is_disk_full(
    tmp_path: Path, servers: Callable[[str], Server], files: Files
) -> None:
    place: Place = make_place("rclone", tmp_path, servers)
    with small_disk(tmp_path / "disk", 1) as disk, machine(disk):
        store = place.open()
        fill(disk / "others")
        assert failure_of_call(lambda: store.commit("stages/k", files(_LARGE), {})).reason is Reason.DISK_FULL
        assert not store.exists("stages/k")
        (disk / "others").unlink()
        store.commit("stages/k", files(_LARGE), {})
    assert content_of(place.elsewhere(), "stages/k") == _LARGE


@pytest.mark.parametrize("kind", ["rclone", "versitygw"])
def test_a_full_server_is_reported_and_no_partial_artifact_is_visible(
    tmp_path: Path, files: Files, kind: str
) -> None:
    limits = {**QUICK, "call_timeout_s": 30}
    with small_disk(tmp_path / "disk", 8) as disk, serve(kind, disk / "server") as server:
        (disk / "server" / "data" / "bucket").mkdir()
        store = S3Store(S3Address("bucket", endpoint_url=server.endpoint).with_limits(**limits))
        store.commit("stages/before", files({"a": b"before"}), {})
        failure = failure_of_call(lambda: store.commit("stages/k", files(_LARGE), {}))
        assert failure.reason in (Reason.DISK_FULL, Reason.NETWORK, Reason.STORE_FAILED)
        assert not store.exists("stages/k")
        assert content_of(store, "stages/before") == {"a": b"before"}
        grow(disk, 96)
        store.commit("stages/k", files(_LARGE), {})
        with machine(tmp_path / "reader"):
            assert content_of(S3Store(store.place), "stages/k") == _LARGE


def test_a_full_directory_store_is_reported_and_no_partial_artifact_is_visible(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        store = DirectoryStore(disk / "store")
        source = tmp_path / "source"
        source.write_bytes(_LARGE["large"])
        assert reason_of(lambda: store.put_input(source)) is Reason.DISK_FULL
        assert store.list("inputs") == []
        grow(disk, 32)
        assert store.input(store.put_input(source)).read_bytes() == _LARGE["large"]
