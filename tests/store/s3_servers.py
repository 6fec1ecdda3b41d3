"""S3 servers for tests: each on a free loopback port, each stopped when its user is done."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Made up; no server but those of the tests takes them.
ACCESS_KEY, SECRET_KEY = "tuneyard-tests", "a-secret-of-the-tests"
_START_TIMEOUT_S = 60.0


def binary(name: str) -> str | None:
    """A program of this environment, of PATH, or named by TUNEYARD_<NAME>."""
    beside = Path(sys.executable).parent / name
    return os.environ.get(f"TUNEYARD_{name.upper()}") or (
        str(beside) if beside.exists() else shutil.which(name)
    )


@dataclass
class Server:
    """A running server. `port` stays the same over a restart."""

    kind: str
    command: list[str]
    port: int
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended: {self.log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.kind} does not listen")

    def kill(self) -> None:
        """As a power cut would end it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(kind: str, directory: Path, *options: str) -> Iterator[Server]:
    """A server of one kind (`moto`, `rclone`, `versitygw`) that keeps its data in `directory`, if anywhere.

    `options` are further ones of rclone's.
    """
    data = directory / "data"
    data.mkdir(parents=True)
    port = free_port()
    environment: dict[str, str] = {}
    if kind == "moto":
        pytest.importorskip("moto.server", reason="moto[server] is not installed")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        # Parts of any size, so that small files have several.
        environment = {"S3_UPLOAD_PART_MIN_SIZE": "1"}
    elif kind == "rclone":
        command = [binary("rclone") or "", "serve", "s3", "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", os.devnull]
        command += [*options, str(data)]
    else:
        command = [binary("versitygw") or "", "--port", f"127.0.0.1:{port}", "posix", str(data)]
        environment = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    if not command[0]:
        pytest.skip(f"{kind} is not installed: put it on PATH, or name it in TUNEYARD_{kind.upper()}")
    server = Server(kind, command, port, environment, directory / "log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])
