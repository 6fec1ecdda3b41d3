"""An artifact is there whole or not at all, and no changed byte is ever read as if it were the old one."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import launcher
from launcher.outcome import Failure, Reason
from launcher.spec.names import relative_path
from launcher.store import MANIFEST, DirectoryStore, open_store

Commit = Callable[..., None]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(launcher.__file__).parents[1])}
FILES = {"a.txt": b"a" * 1000, "deep/er/b.bin": bytes(range(256))}


def run(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def reason_of(call: Callable[[], Any]) -> Reason:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value.reason


def test_a_committed_directory_is_read_back(store: DirectoryStore, commit: Commit) -> None:
    assert not store.exists("stages/k")
    commit("stages/k", FILES, {"seconds": 3.5})
    assert store.exists("stages/k")
    artifact = store.open("stages/k")
    assert {name: artifact.path(name).read_bytes() for name in artifact.manifest.files} == FILES
    assert artifact.manifest.meta == {"seconds": 3.5}
    assert (artifact.directory() / "a.txt").is_file()


def test_a_commit_consumes_its_directory_and_leaves_nothing_else(
    store: DirectoryStore, commit: Commit, tmp_path: Path
) -> None:
    commit("stages/k", FILES)
    assert not (tmp_path / "to-commit").exists()
    assert store.leftovers() == ()


def test_the_second_writer_gets_the_first_writers_artifact(
    store: DirectoryStore, commit: Commit, tmp_path: Path
) -> None:
    commit("stages/k", {"a.txt": b"first"})
    second = tmp_path / "second"
    second.mkdir()
    (second / "a.txt").write_bytes(b"second")
    manifest = store.commit("stages/k", second, {})
    assert manifest.files["a.txt"].size_bytes == 5
    assert store.open("stages/k").path("a.txt").read_bytes() == b"first"
    assert store.leftovers() == ()


def test_files_without_a_manifest_do_not_block_a_commit(store: DirectoryStore, commit: Commit) -> None:
    commit("stages/k", FILES)
    store.local_path(f"stages/k/{MANIFEST}").unlink()
    assert not store.exists("stages/k")
    commit("stages/k", {"new.txt": b"new"})
    assert list(store.open("stages/k").manifest.files) == ["new.txt"]
    assert [path.name for path in store.open("stages/k").directory().iterdir() if path.name != MANIFEST] == [
        "new.txt"
    ]


def test_an_empty_artifact_is_an_artifact(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.commit("stages/k", tmp_path / "empty", {})
    assert store.exists("stages/k")
    assert store.open("stages/k").manifest.files == {}


def test_a_missing_artifact_is_missing_input(store: DirectoryStore, commit: Commit) -> None:
    assert reason_of(lambda: store.open("stages/none")) is Reason.MISSING_INPUT
    commit("stages/k")
    assert reason_of(lambda: store.open("stages/k").path("other.txt")) is Reason.MISSING_INPUT
    assert reason_of(lambda: store.input("0" * 64)) is Reason.MISSING_INPUT
    assert store.get_json("runs/r/none.json") is None
    assert store.list("runs/none") == []


def test_committed_names_are_listed_sorted(store: DirectoryStore, commit: Commit) -> None:
    for key in ("b", "a", "c"):
        commit(f"stages/{key}")
    (store.root / "stages" / ".uncommitted-d").mkdir()
    assert store.list("stages") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"b" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["one byte", "truncated", "longer", "emptied", "missing", "a directory"],
)
def test_a_corrupt_file_is_never_read(
    store: DirectoryStore, commit: Commit, harm: Callable[[Path], Any]
) -> None:
    commit("stages/k", FILES)
    harm(store.local_path("stages/k/a.txt"))
    artifact = store.open("stages/k")
    assert reason_of(lambda: artifact.path("a.txt")) is Reason.CORRUPT_ARTIFACT
    assert reason_of(artifact.directory) is Reason.CORRUPT_ARTIFACT
    assert artifact.path("deep/er/b.bin").read_bytes() == FILES["deep/er/b.bin"]


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_any_changed_byte_is_detected(store: DirectoryStore, commit: Commit, place: int, change: int) -> None:
    store.delete("stages/k")
    commit("stages/k", FILES, {"seconds": 1})
    files = sorted(path for path in store.local_path("stages/k").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    place %= sum(sizes)
    for path, size in zip(files, sizes, strict=True):
        if place < size:
            data = bytearray(path.read_bytes())
            data[place] ^= change
            path.write_bytes(data)
            break
        place -= size

    # Other white space in the manifest, say, is no harm: then nothing that was committed is another.
    with suppress(Failure):
        artifact = store.open("stages/k")
        read = {name: artifact.path(name).read_bytes() for name in artifact.manifest.files}
        assert (read, artifact.manifest.meta) == (FILES, {"seconds": 1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.CORRUPT_ARTIFACT),
        ("{", Reason.CORRUPT_ARTIFACT),
        ("[]", Reason.CORRUPT_ARTIFACT),
        ("3", Reason.CORRUPT_ARTIFACT),
        ("{}", Reason.CORRUPT_ARTIFACT),
        ('{"format": 1, "files": [], "meta": {}}', Reason.CORRUPT_ARTIFACT),
        ('{"format": 1, "files": {"a": 1}, "meta": {}}', Reason.CORRUPT_ARTIFACT),
        ('{"format": "1", "files": {}, "meta": {}}', Reason.CORRUPT_ARTIFACT),
        ('{"format": 2, "shape": "new"}', Reason.UNSUPPORTED),
    ],
)
def test_a_malformed_manifest_is_refused(
    store: DirectoryStore, commit: Commit, text: str, reason: Reason
) -> None:
    commit("stages/k")
    store.local_path(f"stages/k/{MANIFEST}").write_text(text)
    assert reason_of(lambda: store.open("stages/k")) is reason


def test_a_manifest_cannot_point_out_of_its_artifact(
    store: DirectoryStore, commit: Commit, tmp_path: Path
) -> None:
    commit("stages/k")
    (tmp_path / "secret").write_bytes(b"secret")
    path = store.local_path(f"stages/k/{MANIFEST}")
    value = json.loads(path.read_text())
    value["files"]["../../../secret"] = value["files"]["out.txt"]
    value.pop("digest", None)
    path.write_text(json.dumps(value))
    assert reason_of(lambda: store.open("stages/k")) is Reason.CORRUPT_ARTIFACT


BAD_NAMES = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "a/../b",
    "../a",
    "a//b",
    "a/",
    ".hidden",
    "a/.b",
    "a\x00b",
    "a\nb",
    "a\\b",
    "\udc80",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_name_that_could_leave_the_store_is_refused(
    store: DirectoryStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        relative_path(name)
    (tmp_path / "out").mkdir()
    for call in (
        lambda: store.commit(name, tmp_path / "out", {}),
        lambda: store.open(name),
        lambda: store.exists(name),
        lambda: store.list(name),
        lambda: store.put_json(name, 1),
        lambda: store.get_json(name),
        lambda: store.delete(name),
        lambda: store.input(name),
    ):
        with pytest.raises(ValueError, match="cannot be a name"):
            call()


@pytest.mark.parametrize("target", ["/etc/passwd", "a.txt", "."])
def test_a_symbolic_link_is_not_committed(store: DirectoryStore, tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_bytes(b"a")
    (out / "link").symlink_to(target)
    with pytest.raises(Failure, match="only plain files") as caught:
        store.commit("stages/k", out, {})
    assert caught.value.where == "link"
    assert not store.exists("stages/k")
    assert store.leftovers() == ()


def test_a_link_to_a_directory_is_not_committed(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert reason_of(lambda: store.commit("stages/k", tmp_path / "link", {})) is Reason.INTERNAL


def test_a_pipe_is_not_committed(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "pipe")
    assert reason_of(lambda: store.commit("stages/k", tmp_path / "out", {})) is Reason.INTERNAL


_RACE = """
import sys, time
from pathlib import Path
from launcher.store import DirectoryStore
store, me = DirectoryStore(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
won = [store.put_json(f"runs/r/{n}.json", {"writer": me, "padding": "x" * 5000}) for n in range(20)]
print("".join("1" if one else "0" for one in won))
"""


def test_concurrent_create_once_has_one_winner(store: DirectoryStore) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(store.root), str(number)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(8) as pool:
        printed = [done[0].strip() for done in pool.map(lambda racer: racer.communicate("go\n", 60), racers)]
    for number in range(20):
        winners = [racer for racer in range(8) if printed[racer][number] == "1"]
        assert len(winners) == 1
        assert store.get_json(f"runs/r/{number}.json")["writer"] == winners[0]
    assert store.leftovers() == ()


def test_a_mutable_object_is_replaced_atomically(store: DirectoryStore) -> None:
    assert store.put_json("runs/r/beat.json", {"step": 1}, create_once=False)
    assert store.put_json("runs/r/beat.json", {"step": 2}, create_once=False)
    assert store.get_json("runs/r/beat.json") == {"step": 2}
    assert not store.put_json("runs/r/beat.json", {"step": 3})
    assert store.get_json("runs/r/beat.json") == {"step": 2}


def test_an_input_is_named_by_its_content(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    digest = store.put_input(tmp_path / "a")
    assert store.put_input(tmp_path / "b") == digest
    assert store.input(digest).read_bytes() == b"same"
    store.input(digest).write_bytes(b"lies")
    assert reason_of(lambda: store.input(digest)) is Reason.CORRUPT_ARTIFACT
    assert reason_of(lambda: store.put_input(tmp_path / "none")) is Reason.MISSING_INPUT


def test_delete_is_idempotent(store: DirectoryStore, commit: Commit) -> None:
    commit("stages/k", FILES)
    store.delete("stages/k")
    store.delete("stages/k")
    assert not store.exists("stages/k")
    assert store.list("stages") == []
    assert store.leftovers() == ()


_COMMIT_FOREVER = """
import sys
from pathlib import Path
from launcher.store import DirectoryStore
store, base = DirectoryStore(Path(sys.argv[1])), Path(sys.argv[2])
for number in range(10**6):
    out = base / f"out-{number}"
    (out / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (out / name).write_bytes(name.encode() * 50_000)
    store.commit(f"stages/{sys.argv[3]}-{number}", out, {})
    store.put_json(f"runs/r/{sys.argv[3]}-{number}.json", {"n": "x" * 10_000})
    if number % 3 == 2:
        store.delete(f"stages/{sys.argv[3]}-{number - 1}")
"""


def assert_whole(store: DirectoryStore) -> None:
    """Every good name leads to something whole; everything else is listed as a leftover."""
    for key in store.list("stages"):
        store.open(f"stages/{key}").directory()
    for name in store.list("runs/r"):
        assert store.get_json(f"runs/r/{name}") is not None
    leftovers = {leftover.path for leftover in store.leftovers()}
    known = {f"stages/{key}" for key in store.list("stages")} | {"runs/r"}
    for path in store.root.glob("*/*"):
        name = path.relative_to(store.root).as_posix()
        assert name in known or name in leftovers, name


def test_a_writer_killed_at_any_moment_leaves_no_half_artifact(store: DirectoryStore, tmp_path: Path) -> None:
    moments = random.Random(20260726)
    for round_number in range(10):
        writer = run(_COMMIT_FOREVER, str(store.root), str(tmp_path / "base"), str(round_number))
        while not store.exists(f"stages/{round_number}-0") and writer.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        _, error = writer.communicate()
        assert writer.returncode == -signal.SIGKILL, error.decode()
        assert_whole(store)
        shutil.rmtree(tmp_path / "base")
    for leftover in store.leftovers():
        store.discard(leftover)
    assert store.leftovers() == ()
    assert_whole(store)


_DIE_AT_SYNC = """
import os, signal, sys
from pathlib import Path
countdown, real = int(sys.argv[3]), os.fsync
def fsync(handle):
    global countdown
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    countdown -= 1
    real(handle)
os.fsync = fsync
from launcher.store import DirectoryStore
store, out = DirectoryStore(Path(sys.argv[1])), Path(sys.argv[2])
(out / "deep").mkdir(parents=True)
for name in ("a", "deep/b"):
    (out / name).write_bytes(b"data")
store.commit("stages/k", out, {})
print("survived")
"""


def test_a_commit_that_dies_at_each_sync_is_whole_or_absent_and_can_be_done_again(tmp_path: Path) -> None:
    found: list[bool] = []
    for count in range(20):
        store = DirectoryStore(tmp_path / f"store-{count}")
        writer = run(_DIE_AT_SYNC, str(store.root), str(tmp_path / f"out-{count}"), str(count))
        output, error = writer.communicate(timeout=60)
        assert writer.returncode in (0, -signal.SIGKILL), error.decode()
        found.append(store.exists("stages/k"))
        assert_whole(store)
        if b"survived" in output:
            break
        again = tmp_path / f"again-{count}"
        again.mkdir()
        (again / "a").write_bytes(b"data")
        store.commit("stages/k", again, {})
        store.open("stages/k").directory()
    assert b"survived" in output
    assert found == sorted(found), "the artifact appears once, at one moment"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_disk_full_differs_from_other_write_errors(
    store: DirectoryStore, commit: Commit, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    commit("stages/before")
    monkeypatch.setattr(os, call, full)
    assert reason_of(lambda: commit("stages/k")) is Reason.DISK_FULL
    if call == "fsync":
        assert reason_of(lambda: store.put_json("runs/r/a.json", 1)) is Reason.DISK_FULL
    monkeypatch.undo()
    assert not store.exists("stages/k")
    assert store.leftovers() == ()
    store.open("stages/before").directory()


def test_a_really_full_disk_is_disk_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        store = DirectoryStore(disk / "store")
        out = tmp_path / "out"
        out.mkdir()
        (out / "big").write_bytes(bytes(1 << 20))
        assert reason_of(lambda: store.commit("stages/k", out, {})) is Reason.DISK_FULL
        assert not store.exists("stages/k")
        (tmp_path / "input").write_bytes(bytes(1 << 20))
        assert reason_of(lambda: store.put_input(tmp_path / "input")) is Reason.DISK_FULL
        assert store.leftovers() == ()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("make", ["a file", "below a file", "a device"])
def test_a_store_that_cannot_be_written_says_so_with_its_place(tmp_path: Path, make: str) -> None:
    (tmp_path / "file").write_text("")
    address = {
        "a file": str(tmp_path / "file"),
        "below a file": str(tmp_path / "file" / "store"),
        "a device": "/dev/null/store",
    }[make]
    with pytest.raises(Failure) as caught:
        open_store(address)
    assert caught.value.reason is Reason.STORE_FAILED
    assert address in caught.value.where


def test_opening_read_only_creates_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), writable=False)
    assert not store.exists("stages/k")
    assert store.list("runs") == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["plain", "with space", "ü#?;%20", "a:b"])
def test_a_directory_address_round_trips(tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path / name))
    assert open_store(store.address).root == tmp_path / name


@pytest.mark.parametrize("address", ["file://data/store", "file://", "file:"])
def test_a_file_address_without_an_absolute_path_is_refused(address: str) -> None:
    assert reason_of(lambda: open_store(address)) is Reason.USAGE


@pytest.mark.parametrize("address", ["gs://bucket", "http://host/path", "ftp://x"])
def test_an_unknown_kind_of_store_is_unsupported(address: str) -> None:
    assert reason_of(lambda: open_store(address)) is Reason.UNSUPPORTED


def test_a_lock_dies_with_its_process(store: DirectoryStore) -> None:
    holder = run(
        "import sys, time\nfrom pathlib import Path\nfrom launcher.store import DirectoryStore\n"
        "with DirectoryStore(Path(sys.argv[1])).lock('runs/r/lock'):\n"
        "    print('held', flush=True)\n    time.sleep(60)",
        str(store.root),
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with store.lock("runs/r/lock") as held:
        assert not held
    holder.kill()
    holder.communicate()
    with store.lock("runs/r/lock") as held:
        assert held
