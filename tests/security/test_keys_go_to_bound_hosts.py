"""An experiment, from a pull request say, cannot choose the host that receives the user's API key."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import Launcher

KEY = "sk-the-users-own-key"


class Listener:
    """A server that keeps the Authorization header of every request."""

    def __init__(self) -> None:
        self.received: list[str | None] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                received.append(self.headers.get("Authorization"))
                self.send_response(401)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


def experiment(directory: Path, url: str) -> str:
    """An experiment whose hosted contender answers at `url`."""
    path = directory / "theirs.yaml"
    contender = {
        "name": "h",
        "kind": "prompted",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "base_url": url,
    }
    document = {
        "format": 1,
        "name": "theirs",
        "task": "sql",
        "data": {"source": "sample", "train_rows": 8, "validation_rows": 0, "test_rows": 2},
        "contenders": [contender],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def site_file(directory: Path, **entry: Any) -> str:
    path = directory / "site.yaml"
    path.write_text(json.dumps({"provider_urls": [{"provider": "openai", **entry}]} if entry else {}))
    return str(path)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_a_key_goes_to_no_host_that_only_the_experiment_names(
    launcher: Launcher, listener: Listener, tmp_path: Path
) -> None:
    theirs = experiment(tmp_path, listener.url)
    planned = launcher("plan", theirs)
    done = launcher("submit", theirs, "--target", "local")
    assert listener.received == []
    host = listener.url.split("/")[2]
    assert host in planned.stdout
    assert done.returncode == 26
    assert host in done.stderr
    assert "provider_urls" in done.stderr
    assert KEY not in planned.stdout + planned.stderr + done.stdout + done.stderr


def test_a_host_that_the_site_file_binds_receives_the_key(
    launcher: Launcher, listener: Listener, tmp_path: Path
) -> None:
    theirs = experiment(tmp_path, listener.url)
    launcher("submit", theirs, "--target", "local", "--site", site_file(tmp_path, url=listener.url))
    assert set(listener.received) == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("url", "entry", "refused"),
    [
        ("https://llm.example/v1", {}, True),
        ("https://llm.example/v1", {"url": "https://llm.example/v1/"}, False),
        ("https://llm.example.evil/v1", {"url": "https://llm.example/v1"}, True),
        ("http://vllm.models.svc:8000/v1", {"url": "http://vllm.models.svc:8000/v1"}, True),
        (
            "http://vllm.models.svc:8000/v1",
            {"url": "http://vllm.models.svc:8000/v1", "allow_http": True},
            False,
        ),
        ("http://api.openai.com/v1", {}, True),
        ("https://api.openai.com/v1", {}, False),
    ],
)
def test_plan_names_the_host_and_whether_submit_refuses_it(
    url: str, entry: dict[str, Any], refused: bool, launcher: Launcher, tmp_path: Path
) -> None:
    done = launcher("plan", experiment(tmp_path, url), "--site", site_file(tmp_path, **entry))
    (line,) = [one for one in done.stdout.splitlines() if "sends the key" in one]
    assert url.split("/")[2] in line
    assert ("submit refuses it" in line) is refused
