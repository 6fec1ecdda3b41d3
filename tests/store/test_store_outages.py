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
from places import QUICK, content_of, machine, reason_of
from s3_servers import Server, free_port, serve

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store


def test_requests_are_retried_until_a_killed_server_is_back(
    tmp_path: Path, files: Callable[[dict[str, bytes]], Path]
) -> None:
    with serve("rclone", tmp_path / "server") as server:
        (tmp_path / "server" / "data" / "bucket").mkdir()
        limits = {**QUICK, "attempts": 1, "call_timeout_s": 120, "patience_s": 60}
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
    limits = {**QUICK, "attempts": 2, "call_timeout_s": 120, "patience_s": 60, "parallel": 2}
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
    limits = {**QUICK, "attempts": 1, "patience_s": 60}
    address = S3Address("bucket", endpoint_url=f"http://127.0.0.1:{free_port()}").with_limits(**limits)
    before = time.monotonic()
    assert reason_of(lambda: S3Store(address)) is Reason.NETWORK
    assert time.monotonic() - before < 20
