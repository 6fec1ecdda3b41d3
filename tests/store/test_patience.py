"""A server that was there and is killed is waited for; one that never was is told of at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from places import QUICK, content_of, reason_of
from s3_servers import free_port, serve

from launcher.outcome import Reason
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store


def test_a_server_that_is_killed_and_comes_back_is_waited_for(
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


def test_a_server_that_never_was_is_told_of_at_once() -> None:
    limits = {**QUICK, "attempts": 1, "patience_s": 60}
    address = S3Address("bucket", endpoint_url=f"http://127.0.0.1:{free_port()}").with_limits(**limits)
    before = time.monotonic()
    assert reason_of(lambda: S3Store(address)) is Reason.NETWORK
    assert time.monotonic() - before < 20
