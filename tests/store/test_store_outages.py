"""Requests to a killed server are retried until it is back; a server that was never reached fails at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from places import QUICK, Place, content_of, machine, make_place, reason_of
from s3_servers import Server, free_port, serve

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store


def test_requests_are_retried_until_a_killed_server_is_back(
    tmp_path: Path, files: Callable[[dict[str, bytes]], Path]
) -> None:
    with serve("rclone", tmp_path / "server") as server:
        (tmp_path / "server" / "data" / "bucket").mkdir()
        limits = {**QUICK, "call_timeout_s": 120, "patience_s": 60}
        store = S3Store(S3Address("bucket", endpoint_url=server.endpoint).with_limits(**limits))
        server.kill()
        started: list[float] = []

        def come_back() -> None:
            started.append(time.monotonic())
            server.start()

        # Longer than all retries of one request take together.
        timer = threading.Timer(3.0, come_back)
        timer.start()
        store.commit("stages/k", files({"a": b"whole"}), {})
        timer.join()
        assert started
        assert content_of(store, "stages/k") == {"a": b"whole"}


@pytest.mark.parametrize("kind", ["rclone", "versitygw"])
def test_a_server_killed_between_parts_loses_no_part(
    tmp_path: Path, files: Callable[[dict[str, bytes]], Path], kind: str
) -> None:
    """Each time in the middle of what moves, on a real server with its data on disk."""
    content = {"large": random.Random(5).randbytes(43 << 20), "small": b"small"}
    limits = {**QUICK, "call_timeout_s": 120, "patience_s": 60, "parallel": 2}
    with serve(kind, tmp_path / "server") as server:
        (tmp_path / "server" / "data" / "bucket").mkdir()
        address = S3Address("bucket", endpoint_url=server.endpoint).with_limits(**limits)
        store = S3Store(address)
        with killing(server, store, after="upload_part"):
            failure = failure_of(lambda: store.commit("stages/k", files(content), {}))
            # rclone forgets unfinished uploads when it is killed: its error asks for a retry.
            assert failure is None or "retry" in failure.next_step
            if failure is not None:
                store.commit("stages/k", files(content), {})
        with machine(tmp_path / "reader"):
            reader = S3Store(address)
            with killing(server, reader, after="get_object"):
                assert content_of(reader, "stages/k") == content


def failure_of(call: Callable[[], object]) -> Failure | None:
    try:
        call()
    except Failure as failure:
        return failure
    return None


@contextmanager
def killing(server: Server, store: S3Store, after: str) -> Iterator[None]:
    """Kill the server when `store` has asked three times for the operation `after`; it is back a second later."""
    asked: list[str] = []
    call, lock = store.client.call, threading.Lock()

    def counted(operation: str, **parameters: Any) -> Any:
        with lock:
            asked.append(operation)
            if asked.count(after) == 3 and operation == after:
                server.kill()
                back.start()
        return call(operation, **parameters)

    back = threading.Timer(1.0, server.start)
    store.client.call = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.client.call = call  # type: ignore[method-assign]
    back.join()


def test_a_server_that_was_never_reached_fails_at_once() -> None:
    limits = {**QUICK, "patience_s": 60}
    address = S3Address("bucket", endpoint_url=f"http://127.0.0.1:{free_port()}").with_limits(**limits)
    before = time.monotonic()
    assert reason_of(lambda: S3Store(address)) is Reason.NETWORK
    assert time.monotonic() - before < 20


#: What an ingress, a load balancer or a network does while the server behind it is away.
OUTAGES = {
    "busy": Reason.NETWORK,
    "slow_down": Reason.NETWORK,
    "refuse": Reason.NETWORK,
    "cut_request": Reason.NETWORK,
    "cut_answer": Reason.NETWORK,
    "stall": Reason.NETWORK,
}


@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_in_any_form_is_waited_for_and_said(
    tmp_path: Path,
    files: Callable[[dict[str, bytes]], Path],
    servers: Callable[[str], Server],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr("launcher.store.patience._SILENT_S", 0.5)
    place = make_place("moto", tmp_path, servers)
    away_until = [0.0]

    def script(_: bytes) -> str | None:
        return fault if time.monotonic() < away_until[0] else None

    upstream = int(place.endpoint.rpartition(":")[2])
    with FaultProxy(upstream, 1, 0, stall_s=1.0, script=script) as proxy:
        limits = {"patience_s": 60, "read_timeout_s": 0.5}
        through = Place("moto", tmp_path, proxy.endpoint, place.bucket, {**QUICK, **limits})
        store = through.open()
        away_until[0] = time.monotonic() + 4.0
        content = {"a": b"whole", "b": b"x" * 100_000}
        store.commit("stages/k", files(content), {})
        assert time.monotonic() > away_until[0]
    assert proxy.done[fault] > 2
    assert content_of(place.open(), "stages/k") == content
    said = capsys.readouterr().err
    assert f"waiting for {proxy.endpoint}: " in said
    assert "answers again after" in said


@pytest.mark.parametrize("fault", ["busy", "refuse", "stall"])
def test_patience_has_an_end_that_names_what_happened(
    tmp_path: Path, servers: Callable[[str], Server], fault: str
) -> None:
    place = make_place("moto", tmp_path, servers)
    away = threading.Event()
    upstream = int(place.endpoint.rpartition(":")[2])
    with FaultProxy(upstream, 1, 0, script=lambda _: fault if away.is_set() else None) as proxy:
        limits = {"patience_s": 2, "read_timeout_s": 0.5}
        store = Place("moto", tmp_path, proxy.endpoint, place.bucket, {**QUICK, **limits}).open()
        away.set()
        before = time.monotonic()
        failure = failure_of(lambda: store.exists("stages/k"))
        assert failure is not None
        assert failure.reason is OUTAGES[fault]
        assert 2 <= time.monotonic() - before < 20
        assert "503" in failure.what if fault == "busy" else "connection" in failure.what


def test_errors_of_the_request_end_it_at_once(tmp_path: Path, servers: Callable[[str], Server]) -> None:
    place = make_place("moto", tmp_path, servers)
    fault = [""]
    upstream = int(place.endpoint.rpartition(":")[2])
    with FaultProxy(upstream, 1, 0, script=lambda _: fault[0] or None) as proxy:
        store = Place("moto", tmp_path, proxy.endpoint, place.bucket, {**QUICK, "patience_s": 60}).open()
        for fault[0], reason in (("clock_skew", Reason.STORE_FAILED), ("disk_full", Reason.DISK_FULL)):
            requests, before = proxy.requests, time.monotonic()
            failure = failure_of(lambda: store.exists("stages/k"))
            assert failure is not None
            assert failure.reason is reason
            assert proxy.requests == requests + 1
            assert time.monotonic() - before < 10


def test_a_stage_waits_for_a_server_that_is_away_when_it_starts(
    tmp_path: Path, servers: Callable[[str], Server]
) -> None:
    place = make_place("moto", tmp_path, servers)
    away_until = time.monotonic() + 4.0
    upstream = int(place.endpoint.rpartition(":")[2])
    with FaultProxy(
        upstream, 1, 0, script=lambda _: "busy" if time.monotonic() < away_until else None
    ) as proxy:
        address = S3Address(place.bucket, endpoint_url=proxy.endpoint)
        limits = {**QUICK, "first_contact_s": 1, "patience_s": 60}
        assert failure_of(lambda: S3Store(address.with_limits(**limits))) is not None
        assert S3Store(address.with_limits(**limits), patient=True).list("runs") == []
