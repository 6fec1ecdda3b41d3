"""Large files resume, small files move together, and the rate limit holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from places import Place, content_of, machine

from launcher.outcome import Failure, Reason
from launcher.store.rate_limiter import RateLimiter
from launcher.store.s3 import S3Store

Files = Callable[[dict[str, bytes]], Path]
MIB = 1 << 20


def counting(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the operations that `store` asks for from now on."""
    seen: list[str] = []
    call = store.client.call

    def counted(operation: str, **parameters: Any) -> Any:
        seen.append(operation)
        return call(operation, **parameters)

    monkeypatch.setattr(store.client, "call", counted)
    return seen


def s3(place: Place) -> S3Store:
    store = place.open()
    assert isinstance(store, S3Store)
    return store


def test_thousands_of_small_files_move_as_few_objects(s3_place: Place, files: Files) -> None:
    content = {f"{n % 7}/{n:04d}.json": b"%d" % n * 50 for n in range(2000)}
    s3(s3_place).commit("stages/k", files(content), {})
    assert len(s3_place.names()) <= 4
    assert content_of(s3_place.elsewhere(), "stages/k") == content


def test_an_interrupted_upload_resumes_with_the_missing_parts(
    s3_place: Place, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_place.limits["parallel"] = 1
    content = {"large": random.Random(1).randbytes(23 * MIB)}
    first = s3(s3_place)
    put_part = first.client.put_part

    def die_at_the_fourth(key: str, upload: str, number: int, data: bytes, digest: str) -> str:
        if number == 4:
            raise KeyboardInterrupt
        return put_part(key, upload, number, data, digest)

    monkeypatch.setattr(first.client, "put_part", die_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        first.commit("stages/k", files(content), {})
    second = s3(s3_place)
    seen = counting(second, monkeypatch)
    second.commit("stages/k", files(content), {})
    assert seen.count("upload_part") == 2
    assert seen.count("create_multipart_upload") == 0
    assert content_of(s3_place.elsewhere(), "stages/k") == content


def test_parts_of_another_file_are_not_reused(
    s3_place: Place, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = s3(s3_place)
    with monkeypatch.context() as patch:
        patch.setattr(first, "_publish_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            first.commit("stages/k", files({"large": b"a" * (11 * MIB), "small": b"a"}), {})
    content = {"large": b"a" * (5 * MIB) + b"b" * (6 * MIB), "small": b"b"}
    s3(s3_place).commit("stages/k", files(content), {})
    assert content_of(s3_place.elsewhere(), "stages/k") == content


def test_an_interrupted_download_resumes_with_the_missing_parts(
    s3_place: Place, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_place.limits["parallel"] = 1
    content = {"large": random.Random(2).randbytes(23 * MIB)}
    s3(s3_place).commit("stages/k", files(content), {})
    with machine(tmp_path / "reader"):
        broken = s3(s3_place)
        get_into, parts = broken.client.get_into, []

        def die_at_the_third(key: str, first: int, size: int, write: Callable[[bytes, int], None]) -> None:
            if len(parts) == 2:
                raise KeyboardInterrupt
            parts.append(first)
            get_into(key, first, size, write)

        manifest_read = broken.open("stages/k")
        monkeypatch.setattr(broken.client, "get_into", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            manifest_read.path("large")
        whole = s3(s3_place)
        artifact = whole.open("stages/k")
        seen = counting(whole, monkeypatch)
        assert artifact.path("large").read_bytes() == content["large"]
        assert seen.count("get_object") == 3


def test_progress_ends_at_the_total(s3_place: Place, files: Files) -> None:
    reports: list[tuple[int, int]] = []
    store = S3Store(s3_place.address, progress=lambda done, total: reports.append((done, total)))
    store.commit("stages/k", files({"a": b"a" * 100_000, "b": b"b" * 11 * MIB}), {})
    assert reports == sorted(reports)
    assert reports[-1] == (100_000 + 11 * MIB, 100_000 + 11 * MIB)


def test_the_rate_limit_holds_for_all_threads_together() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = RateLimiter(10.0, clock=lambda: now[0], sleep=sleep)
    for _ in range(5):
        pace.take(20)
    assert now[0] == pytest.approx(100 + 4 * 2)
    RateLimiter(None, sleep=lambda _: pytest.fail("no cap, no wait")).take(10**12)


@pytest.mark.parametrize("fault", ["wrong_write", "wrong_read"])
def test_a_byte_corrupted_in_transit_is_repaired(s3_place: Place, files: Files, fault: str) -> None:
    content = {"large": random.Random(3).randbytes(11 * MIB), **{f"{n}": b"%d" % n * 99 for n in range(20)}}
    spoilt: list[bytes] = []

    def once_per_object(head: bytes) -> str | None:
        line = head.split(b"\r\n")[0].partition(b"&")[0]
        if b"/stages/" in line and line not in spoilt and line.startswith((b"PUT", b"GET")):
            spoilt.append(line)
            return fault
        return None

    with FaultProxy(int(s3_place.endpoint.rpartition(":")[2]), 1, 0, script=once_per_object) as proxy:
        address = s3_place.address
        through = Place(s3_place.kind, s3_place.directory, proxy.endpoint, address.bucket)
        through.open().commit("stages/k", files(content), {})
        assert content_of(through.elsewhere(), "stages/k") == content
        assert proxy.done[fault] >= 3
    assert content_of(s3_place.elsewhere(), "stages/k") == content


def test_bytes_that_stay_corrupt_end_in_corrupt_artifact(s3_place: Place, files: Files) -> None:
    s3(s3_place).commit("stages/k", files({"large": b"x" * 11 * MIB}), {})

    def always(head: bytes) -> str | None:
        return "wrong_read" if b"/.data/" in head.split(b"\r\n")[0] else None

    with FaultProxy(int(s3_place.endpoint.rpartition(":")[2]), 1, 0, script=always) as proxy:
        through = Place(s3_place.kind, s3_place.directory / "x", proxy.endpoint, s3_place.bucket)
        with pytest.raises(Failure) as caught:
            through.elsewhere().open("stages/k").path("large")
    assert caught.value.reason is Reason.CORRUPT_ARTIFACT
