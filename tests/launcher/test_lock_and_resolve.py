"""Names become digests before the plan; a lock makes them final; a token is never shown."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny import LORA, UNTUNED, experiment

from launcher.outcome import Failure, Reason
from launcher.resolve import hub as hub_module
from launcher.resolve.resolver import choose_source, read_lock, resolve
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load
from launcher.spec.lock import Lock
from launcher.spec.planner import plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_dontshowme"


class Hub(ThreadingHTTPServer):
    """The hub's revision call, answering as a test wants."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status, self.body, self.raw = 200, json.dumps({"sha": COMMIT}).encode(), b""
        self.headers_sent: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append((self.path, self.headers.get("Authorization")))
                if hub.raw:
                    self.wfile.write(hub.raw)
                    return
                self.send_response(hub.status)
                for name, value in hub.headers_sent.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(hub.body)))
                self.end_headers()
                self.wfile.write(hub.body)

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def from_hub(name: str = "owner/model") -> Experiment:
    return experiment(contenders=[{**UNTUNED, "model": name}])


def write_viggo(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test"):
        (directory / f"viggo-{part}.csv").write_text(f"meaning_representation,target\n{part}(),words\n")
    return directory


def write_spider(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("spider_create_context_train.json", "spider_create_context_val.json"):
        (directory / name).write_text("[]")
    return directory


def test_a_hub_name_becomes_a_commit(hub: Hub) -> None:
    lock = resolve(from_hub()).lock
    assert lock.models["owner/model"].source.model_dump() == {
        "kind": "hub",
        "repository": "owner/model",
        "revision": COMMIT,
    }
    assert hub.asked == [("/api/models/owner/model/revision/main", f"Bearer {TOKEN}")]


def test_a_branch_is_resolved_at_the_hub_and_a_commit_is_not(hub: Hub) -> None:
    resolve(from_hub("owner/model@v1"))
    resolve(from_hub(f"owner/model@{COMMIT}"))
    assert [path for path, _ in hub.asked] == ["/api/models/owner/model/revision/v1"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.NO_SUCH_MODEL),
        (403, Reason.NO_SUCH_MODEL),
        (404, Reason.NO_SUCH_MODEL),
        (429, Reason.NETWORK),
        (500, Reason.NETWORK),
        (503, Reason.NETWORK),
    ],
)
def test_hub_errors_map_to_reasons(hub: Hub, status: int, reason: Reason) -> None:
    hub.status = status
    with pytest.raises(Failure) as caught:
        resolve(from_hub())
    assert caught.value.reason is reason
    assert str(status) in caught.value.what
    assert "owner/model" in caught.value.where


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>captive portal</html>",
        b"[]",
        b"null",
        b"{}",
        b'{"sha": 3}',
        b'{"sha": "main"}',
        json.dumps({"sha": COMMIT + "\n"}).encode(),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_garbage_answer_is_a_network_failure(hub: Hub, body: bytes) -> None:
    hub.body = body
    with pytest.raises(Failure) as caught:
        resolve(from_hub())
    assert caught.value.reason is Reason.NETWORK


@pytest.mark.parametrize("raw", [b"garbage\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 999\r\n\r\n{"])
def test_an_answer_that_is_not_http_is_a_network_failure(hub: Hub, raw: bytes) -> None:
    hub.raw = raw
    with pytest.raises(Failure) as caught:
        resolve(from_hub())
    assert caught.value.reason is Reason.NETWORK


def test_a_hub_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(hub_module, "_TIMEOUT_S", 0.05)
        with pytest.raises(Failure, match="timed out") as caught:
            resolve(from_hub())
    assert caught.value.reason is Reason.NETWORK
    assert "--lock" in caught.value.next_step


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "ftp://x", "http://127.0.0.1:1", "http://[x"])
def test_an_invalid_endpoint_is_a_network_failure(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(Failure) as caught:
        resolve(from_hub())
    assert caught.value.reason is Reason.NETWORK


@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN} ü"])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_the_token_is_in_no_message(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, status: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.status, hub.body = status, b"{}"
    with pytest.raises(Failure) as caught:
        resolve(from_hub())
    assert TOKEN not in caught.value.text()


def test_the_token_does_not_follow_a_redirect(hub: Hub) -> None:
    elsewhere = Hub()
    threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        hub.status, hub.headers_sent = 302, {"Location": f"{elsewhere.url}/moved"}
        resolve(from_hub())
        assert elsewhere.asked == [("/moved", None)]
    finally:
        elsewhere.shutdown()
        elsewhere.server_close()


def test_offline_mode_fails_without_a_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Failure, match="HF_HUB_OFFLINE"):
        resolve(from_hub())
    assert hub.asked == []


def test_all_unresolvable_names_are_reported_at_once(tmp_path: Path) -> None:
    contenders = [
        {**UNTUNED, "model": "no-such-model"},
        {**LORA, "model": str(tmp_path / "nothing")},
        {**LORA, "name": "b", "model": str(tmp_path)},
    ]
    with pytest.raises(Failure) as caught:
        resolve(experiment(contenders=contenders, task="chat", data={"source": "chat"}, scorers=["no_mod:f"]))
    assert caught.value.reason is Reason.NO_SUCH_MODEL
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("name", ["x", "a/b/c", "owner/mod el", "../up/model", "ö/ü", "owner/model\n"])
def test_a_malformed_model_name_is_no_such_model(name: str) -> None:
    with pytest.raises(Failure) as caught:
        resolve(from_hub(name))
    assert caught.value.reason is Reason.NO_SUCH_MODEL


def test_a_locked_experiment_plans_offline(hub: Hub, tmp_path: Path) -> None:
    data = write_viggo(tmp_path / "viggo")
    wanted = experiment(
        task="viggo", data={"source": "viggo"}, contenders=[{**UNTUNED, "model": "owner/model"}]
    )
    first = resolve(wanted, data_directory=data)
    path = tmp_path / "lock.json"
    path.write_text(first.lock.model_dump_json())
    hub.shutdown()
    hub.server_close()
    again = resolve(wanted, locked=read_lock(path))
    assert plan(again.experiment, again.lock).to_bytes() == plan(first.experiment, first.lock).to_bytes()
    assert len(hub.asked) == 1


def test_data_that_differs_from_the_lock_is_refused(tmp_path: Path) -> None:
    data = write_viggo(tmp_path / "viggo")
    wanted = experiment(task="viggo", data={"source": "viggo"})
    lock = resolve(wanted, data_directory=data).lock
    resolve(wanted, data_directory=data, locked=lock)
    (data / "viggo-test.csv").write_text("other")
    with pytest.raises(Failure, match="not those of the lock") as caught:
        resolve(wanted, data_directory=data, locked=lock)
    assert caught.value.reason is Reason.BAD_DATA
    assert caught.value.problems == ("viggo-test.csv",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", Reason.BAD_EXPERIMENT),
        ("[]", Reason.BAD_EXPERIMENT),
        ('{"models": 3}', Reason.BAD_EXPERIMENT),
        ('{"mispelt": 3}', Reason.BAD_EXPERIMENT),
        ('{"format": 2}', Reason.UNSUPPORTED),
    ],
)
def test_a_malformed_lock_is_refused(tmp_path: Path, text: str, reason: Reason) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(Failure) as caught:
        read_lock(path)
    assert caught.value.reason is reason
    assert caught.value.where == str(path)


def test_a_missing_lock_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        read_lock(tmp_path / "none.json")
    assert caught.value.reason is Reason.MISSING_INPUT


@pytest.mark.parametrize("folder", ["", "viggo"])
def test_data_lies_in_the_directory_or_in_a_folder_named_like_the_source(tmp_path: Path, folder: str) -> None:
    write_viggo(tmp_path / folder)
    resolution = resolve(experiment(task="viggo", data={"source": "viggo"}), data_directory=tmp_path)
    assert sorted(resolution.lock.data_files) == ["viggo-test.csv", "viggo-train.csv", "viggo-valid.csv"]
    assert {path.parent for path in resolution.locations.values()} == {tmp_path / folder}


def test_a_source_that_reads_a_directory_asks_for_one() -> None:
    with pytest.raises(Failure) as caught:
        resolve(experiment(task="viggo", data={"source": "viggo"}))
    assert caught.value.reason is Reason.MISSING_INPUT
    assert "--data DIR with viggo-train.csv" in caught.value.next_step


@pytest.mark.parametrize("make", [False, True])
def test_a_directory_without_the_data_says_what_it_needs(tmp_path: Path, make: bool) -> None:
    directory = tmp_path / "empty"
    if make:
        directory.mkdir()
    with pytest.raises(Failure) as caught:
        resolve(experiment(task="viggo", data={"source": "viggo"}), data_directory=directory)
    assert caught.value.reason is Reason.MISSING_INPUT
    assert str(directory) in caught.value.where


def test_a_named_directory_replaces_the_sample(tmp_path: Path) -> None:
    write_spider(tmp_path / "spider-create-context")
    chosen = choose_source(load("sql", profile="smoke"), tmp_path)
    assert chosen.data.source == "spider-create-context"
    assert chosen.data.train_rows == load("sql", profile="smoke").data.train_rows


def test_a_chosen_source_is_kept(tmp_path: Path) -> None:
    wanted = load("sql", profile="paper")
    assert choose_source(wanted, tmp_path) is wanted


@pytest.mark.parametrize("make", [False, True])
def test_a_directory_with_no_data_at_all_is_refused(tmp_path: Path, make: bool) -> None:
    directory = tmp_path / "empty"
    if make:
        directory.mkdir()
    with pytest.raises(Failure) as caught:
        choose_source(load("sql", profile="smoke"), directory)
    assert caught.value.reason is Reason.MISSING_INPUT


def test_a_model_directory_holds_no_pickles_and_needs_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    wanted = experiment(contenders=[{**UNTUNED, "model": str(tmp_path)}])
    with pytest.raises(Failure, match="needs config"):
        resolve(wanted)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (locked,) = resolve(wanted).lock.models.values()
    assert sorted(locked.files) == ["config.json", "model.safetensors"]


def test_a_scorers_source_file_is_an_input_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = tmp_path / "chat"
    chat.mkdir()
    for name in ("train", "test"):
        (chat / f"{name}.jsonl").write_text("{}\n")
    wanted = experiment(task="chat", data={"source": "chat"}, scorers=["exact", "mine:score"])
    locks = []
    for text in ("one", "two"):
        (tmp_path / "mine.py").write_text(text)
        locks.append(resolve(wanted, data_directory=chat).lock)
    assert list(locks[0].scorer_files) == ["scorers/mine.py"]
    assert locks[0].scorer_files != locks[1].scorer_files
    with pytest.raises(Failure, match="not those of the lock"):
        resolve(wanted, data_directory=chat, locked=locks[0])


def locked_smoke() -> Lock:
    """A lock without data, as the sample's is."""
    return resolve(load("sql", profile="smoke")).lock


def test_a_lock_without_data_does_not_replace_the_data_option() -> None:
    with pytest.raises(Failure) as caught:
        resolve(load("viggo", profile="smoke"), locked=locked_smoke())
    assert caught.value.reason is Reason.MISSING_INPUT
    assert "--data DIR with viggo-train.csv" in caught.value.next_step


def test_a_lock_of_another_source_does_not_replace_the_data_option(tmp_path: Path) -> None:
    locked = resolve(load("viggo", profile="smoke"), data_directory=write_viggo(tmp_path)).lock
    wanted = load("sql", profile="smoke", sets=("data.source=spider-create-context",))
    with pytest.raises(Failure) as caught:
        resolve(wanted, locked=locked)
    assert "spider_create_context_train.json" in caught.value.next_step
    assert resolve(load("sql", profile="smoke"), locked=locked).lock.data_files == {}


def test_locked_data_replace_the_sample(tmp_path: Path) -> None:
    """A lock made with --data gives the same run on a machine that has only the lock."""
    wanted = load("sql", profile="smoke")
    first = resolve(choose_source(wanted, write_spider(tmp_path)), data_directory=tmp_path)
    elsewhere = resolve(wanted, locked=first.lock)
    assert (
        plan(elsewhere.experiment, elsewhere.lock).to_bytes() == plan(first.experiment, first.lock).to_bytes()
    )


@pytest.mark.parametrize("model", ["smollm2-135m", "owner/model", f"owner/model@{COMMIT}"])
def test_a_model_missing_from_the_lock_is_refused_without_a_request(hub: Hub, model: str) -> None:
    with pytest.raises(Failure, match="not in the lock, which has random-llama") as caught:
        resolve(from_hub(model), locked=locked_smoke())
    assert caught.value.where == f"model '{model}'"
    assert "--relock" in caught.value.next_step
    assert hub.asked == []


def test_a_model_directory_that_differs_from_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    wanted = experiment(contenders=[{**UNTUNED, "model": str(tmp_path)}])
    locked = resolve(wanted).lock
    assert resolve(wanted, locked=locked).lock == locked
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(Failure, match="not in the lock"):
        resolve(wanted, locked=locked)


def test_data_and_scorers_that_the_lock_lacks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("one")
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    wanted = experiment(task="chat", data={"source": "chat"}, scorers=["mine:score"])
    with pytest.raises(Failure) as caught:
        resolve(wanted, data_directory=tmp_path, locked=locked_smoke())
    assert caught.value.problems == (
        f"--data {tmp_path}: its files are not in the lock",
        "mine:score: its files are not in the lock",
    )
    assert "--relock" in caught.value.next_step


def test_an_empty_lock_resolves_nothing() -> None:
    assert Lock().model_dump(mode="json") == {
        "format": 1,
        "models": {},
        "data_source": None,
        "data_files": {},
        "scorer_files": {},
    }
