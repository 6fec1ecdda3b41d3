"""Rehearsal servers for tests, which can be killed and started again on the same port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

HERE = Path(__file__).parent
MODEL = "gpt-3.5-turbo-0613"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """One server with its state directory; `keys` maps API keys to tenants."""

    root: Path
    keys: dict[str, str]
    faults: list[dict[str, Any]] = field(default_factory=list)
    model: Path | None = None
    real: bool = False
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        model = self.model
        if model is None:
            model = self.root / "model"
            model.mkdir(exist_ok=True)
            (model / "config.json").write_text("{}")
        (self.root / "faults.json").write_text(json.dumps(self.faults))
        ready = self.root / "ready"
        ready.unlink(missing_ok=True)
        program = ["-m", "jobs", "rehearse"] if self.real else [str(HERE / "simulated_server.py")]
        command = [
            *(sys.executable, *program, "--die-with-parent", "--state", str(self.root / "state")),
            *("--model", f"{MODEL}={model}", "--port", str(self.port), "--ready-file", str(ready)),
            *("--faults", str(self.root / "faults.json"), *self.options),
        ]
        environment = {**os.environ, "TUNEYARD_REHEARSAL_KEYS": json.dumps(self.keys), "OMP_NUM_THREADS": "1"}
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None, (self.root / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(90)
            self.process = None

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        chosen = key or next(iter(self.keys))
        return openai.OpenAI(base_url=self.url, api_key=chosen, max_retries=0, **options)

    def counters(self, key: str | None = None) -> dict[str, int]:
        import urllib.request

        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/rehearsal/counters")
        request.add_header("Authorization", f"Bearer {key or next(iter(self.keys))}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


def upload_of(count: int, text: str = "answer") -> bytes:
    """A training file of `count` different examples."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": f"{text} {number}"},
            ]
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
