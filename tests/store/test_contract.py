"""One contract for every store: whole or not there, never a changed byte, one winner, nothing lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from places import Place, content_of, reason_of

from launcher.outcome import Failure, Reason
from launcher.store import MANIFEST, Store
from launcher.store.address import TransferLimits
from launcher.store.s3 import S3Store

Files = Callable[[dict[str, bytes]], Path]
CONTENT = {
    "report.md": b"# report\n",
    "empty": b"",
    "deep/er/ünï code.bin": bytes(range(256)) * 5,
    "large.bin": random.Random(1).randbytes(200_000),
}


def test_a_committed_artifact_is_read_back_here_and_elsewhere(place: Place, files: Files) -> None:
    store = place.open()
    assert not store.exists("stages/k")
    directory = files(CONTENT)
    manifest = store.commit("stages/k", directory, {"seconds": 3.5})
    assert not directory.exists()
    assert manifest.meta == {"seconds": 3.5}
    for reader in (store, place.open(), place.elsewhere()):
        assert reader.exists("stages/k")
        assert content_of(reader, "stages/k") == CONTENT
        assert reader.open("stages/k").manifest == manifest
    assert store.leftovers() == ()


def test_a_file_in_parts_and_one_file_of_many_are_read_back(place: Place, files: Files) -> None:
    content = {f"rows/{number}.json": b"%d" % number for number in range(300)}
    content["weights.bin"] = random.Random(2).randbytes(12 << 20)
    place.open().commit("stages/k", files(content), {})
    elsewhere = place.elsewhere().open("stages/k")
    assert elsewhere.path("rows/123.json").read_bytes() == b"123"
    assert elsewhere.path("weights.bin").read_bytes() == content["weights.bin"]
    assert content_of(place.elsewhere(), "stages/k") == content


def test_an_empty_artifact_is_an_artifact(place: Place, files: Files) -> None:
    store = place.open()
    store.commit("stages/k", files({}), {})
    assert place.elsewhere().open("stages/k").manifest.files == {}


def test_the_second_writer_gets_the_first_writers_artifact(place: Place, files: Files) -> None:
    first = place.open().commit("stages/k", files({"a": b"first"}), {})
    assert place.elsewhere().commit("stages/k", files({"a": b"second"}), {}) == first
    assert content_of(place.elsewhere(), "stages/k") == {"a": b"first"}


def test_eight_concurrent_writers_get_one_whole_artifact(place: Place, files: Files) -> None:
    # On a server that ignores conditions, every writer must be faster than this: the product's own time.
    place.limits["settle_s"] = TransferLimits().settle_s
    stores = [place.elsewhere() for _ in range(8)]
    directories = [files({"a": b"%d" % n * 999, "b": b"%d" % n}) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        manifests = list(
            pool.map(
                lambda pair: pair[0].commit("stages/k", pair[1], {}), zip(stores, directories, strict=True)
            )
        )
    assert all(manifest == manifests[0] for manifest in manifests)
    content = content_of(place.elsewhere(), "stages/k")
    assert content["a"] == content["b"] * 999


def test_create_once_has_one_winner_and_later_writers_lose(place: Place) -> None:
    place.limits["settle_s"] = TransferLimits().settle_s
    stores = [place.elsewhere() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: stores[n].put_json("runs/r/outcome.json", {"by": n}), range(8)))
    if place.kind in ("moto", "rclone"):
        # moto looks and writes without a lock between; on rclone the claims of writers that begin at the same
        # moment do not always decide. Now and then two pass (docs/storage.md, "Create-once").
        assert sum(won) >= 1
    else:
        assert sum(won) == 1
    final = place.elsewhere().get_json("runs/r/outcome.json")
    assert final in [{"by": number} for number, winner in enumerate(won) if winner]
    assert not place.open().put_json("runs/r/outcome.json", {"by": 9})
    assert place.open().leftovers() == ()


def test_mutable_json_is_replaced_atomically(place: Place) -> None:
    store = place.open()
    for number in range(3):
        assert store.put_json("runs/r/beat.json", {"step": number, "text": "ü"}, create_once=False)
        assert place.elsewhere().get_json("runs/r/beat.json") == {"step": number, "text": "ü"}


def test_a_missing_object_is_none_or_missing_input(place: Place, files: Files) -> None:
    store = place.open()
    assert store.get_json("runs/none.json") is None
    assert store.list("runs/none") == []
    assert store.fetch("runs/none.log") is None
    assert store.usage("stages/none") == 0
    assert not store.has_input("0" * 64)
    assert reason_of(lambda: store.open("stages/none")) is Reason.MISSING_INPUT
    assert reason_of(lambda: store.input("0" * 64)) is Reason.MISSING_INPUT
    store.commit("stages/k", files({"a": b"a"}), {})
    assert reason_of(lambda: store.open("stages/k").path("b")) is Reason.MISSING_INPUT


def test_only_committed_names_are_listed(place: Place, files: Files) -> None:
    store = place.open()
    for key in ("b", "a", "c"):
        store.commit(f"runs/r/work/{key}", files({"x": b"x"}), {})
    _break_off(store, "runs/r/work/d", files({"x": b"x"}))
    store.put_json("runs/r/plan.json", {})
    assert store.list("runs/r/work") == ["a", "b", "c"]
    assert store.list("runs/r") == ["plan.json", "work"]
    assert store.list("runs") == ["r"]


def _break_off(store: Store, prefix: str, directory: Path) -> None:
    """A commit that dies when all its files are there and its manifest is not."""
    with pytest.MonkeyPatch.context() as patch:

        def die(*_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

        if isinstance(store, S3Store):
            patch.setattr(store, "_publish_manifest", die)
        else:
            patch.setattr("launcher.store.directory._write_synced", die)
            patch.setattr("launcher.store.directory.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            store.commit(prefix, directory, {})


def test_leftovers_of_a_crash_are_invisible_and_can_be_discarded(place: Place, files: Files) -> None:
    store = place.open()
    store.commit("stages/good", files(CONTENT), {})
    _break_off(store, "stages/k", files(CONTENT))
    assert not store.exists("stages/k")
    assert store.list("stages") == ["good"]
    found = store.leftovers()
    assert len(found) == 1
    assert found[0].size_bytes >= sum(map(len, CONTENT.values()))
    other = place.elsewhere()
    assert other.leftovers() == found
    other.discard(found[0])
    assert other.leftovers() == ()
    other.commit("stages/k", files({"new": b"new"}), {})
    assert content_of(place.elsewhere(), "stages/k") == {"new": b"new"}
    assert content_of(place.elsewhere(), "stages/good") == CONTENT


@pytest.mark.parametrize(
    "harm",
    [lambda b: b[:-1], lambda b: b + b"\n", lambda b: b[:7] + bytes([b[7] ^ 1]) + b[8:], lambda _: b""],
    ids=["truncated", "longer", "one bit", "emptied"],
)
def test_a_changed_object_is_never_read_as_good(
    place: Place, files: Files, harm: Callable[[bytes], bytes]
) -> None:
    content = {**CONTENT, **{f"rows/{number}": b"row %d" % number * 3 for number in range(20)}}
    del content["empty"]
    place.open().commit("stages/k", files(content), {"seconds": 1.25})
    reasons: list[Reason] = []
    for key in place.names():
        before: list[bytes] = []
        place.change(key, lambda data, before=before: (before.append(data), harm(data))[1])  # type: ignore[misc]
        try:
            # Extra bytes after the right ones, or white space, are not content.
            assert content_of(place.elsewhere(), "stages/k") == content
            assert harm(b"{}      \n").strip() == b"{}"
        except Failure as failure:
            reasons.append(failure.reason)
        place.change(key, lambda _, before=before: before[0])  # type: ignore[misc]
    assert set(reasons) <= {Reason.CORRUPT_ARTIFACT}
    assert content_of(place.elsewhere(), "stages/k") == content


def test_any_changed_bit_of_a_manifest_is_found(place: Place, files: Files) -> None:
    place.open().commit("stages/k", files({"a": b"aaaa"}), {"seconds": 1.25, "loss": 0.5})
    (key,) = (key for key in place.names() if key.endswith(MANIFEST))
    chance = random.Random(3)
    original: list[bytes] = []
    place.change(key, lambda data: (original.append(data), data)[1])
    reader = place.elsewhere()
    reasons: list[Reason] = []
    for _ in range(25):
        at, bit = chance.randrange(len(original[0])), 1 << chance.randrange(8)
        place.change(
            key,
            lambda _, at=at, bit=bit: (
                original[0][:at] + bytes([original[0][at] ^ bit]) + original[0][at + 1 :]
            ),  # type: ignore[misc]
        )
        try:
            manifest = reader.open("stages/k").manifest
        except Failure as failure:
            reasons.append(failure.reason)
        else:  # white space is not content
            assert manifest.meta == {"seconds": 1.25, "loss": 0.5}
            assert manifest.files["a"].size_bytes == 4
    assert set(reasons) == {Reason.CORRUPT_ARTIFACT}


def test_an_outside_file_keeps_its_digest(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "outside.bin"
    source.write_bytes(random.Random(4).randbytes(6 << 20))
    store = place.open()
    sha256 = store.put_input(source)
    assert store.put_input(source) == sha256
    assert store.has_input(sha256)
    assert place.elsewhere().input(sha256).read_bytes() == source.read_bytes()
    place.change(f"inputs/{sha256}", lambda data: data[:-1] + b"?")
    assert reason_of(lambda: place.elsewhere().input(sha256)) is Reason.CORRUPT_ARTIFACT


def test_delete_removes_every_byte(place: Place, files: Files) -> None:
    store = place.open()
    store.commit("stages/k", files(CONTENT), {})
    store.commit("stages/kk", files({"a": b"a"}), {})
    assert store.usage("stages/k") >= sum(map(len, CONTENT.values()))
    place.elsewhere().delete("stages/k")
    assert not store.exists("stages/k")
    assert store.usage("stages/k") == 0
    assert store.leftovers() == ()
    assert content_of(store, "stages/kk") == {"a": b"a"}
    store.delete("stages/none")


def test_a_run_is_deleted_with_everything_below_it(place: Place, files: Files) -> None:
    store = place.open()
    store.put_json("runs/r-1/plan.json", {})
    store.commit("runs/r-1/work/train/step-1", files({"x": b"x" * 100}), {})
    store.put_json("runs/r-10/plan.json", {})
    store.delete("runs/r-1")
    assert store.list("runs") == ["r-10"]
    assert store.usage("runs/r-1") == 0
    assert store.leftovers() == ()


def test_a_log_is_read_from_elsewhere_once_it_is_published(place: Place) -> None:
    store = place.open()
    path = "runs/r/attempts/1/logs/train-t1.log"
    store.local_path(path).parent.mkdir(parents=True)
    store.local_path(path).write_text("step 1\n")
    here = store.fetch(path)
    assert here is not None
    assert here.read_text() == "step 1\n"
    store.publish(path)
    there = place.elsewhere().fetch(path)
    assert there is not None
    assert there.read_text() == "step 1\n"


def test_a_lock_has_one_holder(place: Place) -> None:
    store, same = place.open(), place.open()
    with store.lock("runs/r/lock") as held, same.lock("runs/r/lock") as second:
        assert held
        assert not second
    with same.lock("runs/r/lock") as held:
        assert held


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/.hidden", "a/..", "", "a\\b", "a\nb"])
def test_names_that_leave_the_store_are_refused(place: Place, name: str) -> None:
    store = place.open()
    for call in (store.exists, store.open, store.get_json, store.list, store.delete, store.local_path):
        with pytest.raises(ValueError, match="cannot be a name"):
            call(name)
