"""Fetching from a hub at one commit: model files only, never pickles; the token is never printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub
from stage_harness import StageHarness

from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.stages import FetchSettings, HubData, HubModel

TOKEN = "hf_secretsecretsecret"

Start = Callable[..., Hub]


@pytest.fixture
def hub() -> Iterator[Start]:
    hubs: list[Hub] = []

    def start(kind: str, files: dict[str, bytes], token: str | None = None) -> Hub:
        hubs.append(Hub("maker/tiny", kind, files, token))
        return hubs[-1]

    yield start
    for each in hubs:
        each.close()


def fetch(harness: StageHarness, source: HubModel | HubData, url: str, token: str = "") -> tuple[int, str]:
    """Exit code and log of a fetch stage in a subprocess, because the library reads its settings at import."""
    harness.add("fetch-hub", "fetch", FetchSettings(source=source), {})
    process = harness.start("fetch-hub", HF_ENDPOINT=url, HF_TOKEN=token, HF_HUB_OFFLINE="0")
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def model_files(random_model: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in random_model.iterdir()}
    return {**files, "pytorch_model.bin": b"pickle", "modeling.py": b"import os", "onnx/config.json": b"{}"}


def test_pickles_and_code_are_not_fetched(harness: StageHarness, hub: Start, random_model: Path) -> None:
    server = hub("models", model_files(random_model))
    code, output = fetch(harness, HubModel(repository="maker/tiny", revision=COMMIT), server.url)
    assert code == 0, output
    fetched = {path.name for path in harness.output("fetch-hub").iterdir()} - {"_SUCCESS.json"}
    assert fetched == {path.name for path in random_model.iterdir()}
    assert not [path for path in server.requests if path.endswith((".bin", ".py"))]


def test_a_private_model_needs_a_token_which_is_never_printed(
    harness: StageHarness, hub: Start, random_model: Path
) -> None:
    server = hub("models", model_files(random_model), TOKEN)
    source = HubModel(repository="maker/tiny", revision=COMMIT)
    code, output = fetch(harness, source, server.url, "hf_wrongwrongwrong")
    assert code == DISPOSITIONS[Reason.NO_SUCH_MODEL].exit_code, output
    assert "HF_TOKEN" in output
    code, opened = fetch(harness, source, server.url, TOKEN)
    assert code == 0, opened
    assert "hf_" not in output + opened
    assert "Traceback" not in output + opened


def test_data_files_keep_their_names(harness: StageHarness, hub: Start) -> None:
    server = hub("datasets", {"data/train.csv": b"a,b\n", "test.csv": b"c\n", "other.csv": b"x"})
    source = HubData(repository="maker/tiny", revision=COMMIT, files=("data/train.csv", "test.csv"))
    code, output = fetch(harness, source, server.url)
    assert code == 0, output
    assert set(harness.store.open(f"stages/{harness.key('fetch-hub')}").manifest.files) == {
        "data/train.csv",
        "test.csv",
    }


def fetch_in_process(harness: StageHarness, source: HubModel, url: str, patch: pytest.MonkeyPatch) -> int:
    """The exit code of a fetch that ends before its download, with the library's settings patched."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", url)
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    harness.add("fetch-hub", "fetch", FetchSettings(source=source), {})
    return harness.run("fetch-hub")


@pytest.mark.parametrize(
    ("repository", "revision"),
    [("maker/none", COMMIT), ("maker/tiny", "f" * 40)],
    ids=["repository", "revision"],
)
def test_an_unknown_repository_or_revision_is_no_such_model(
    harness: StageHarness,
    hub: Start,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    repository: str,
    revision: str,
) -> None:
    server = hub("models", {"config.json": b"{}"})
    source = HubModel(repository=repository, revision=revision)
    code = fetch_in_process(harness, source, server.url, monkeypatch)
    errors = capsys.readouterr().err
    assert code == DISPOSITIONS[Reason.NO_SUCH_MODEL].exit_code, errors
    assert "Traceback" not in errors


def test_an_unreachable_hub_is_a_network_failure(
    harness: StageHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = HubModel(repository="maker/tiny", revision=COMMIT)
    code = fetch_in_process(harness, source, "http://127.0.0.1:9", monkeypatch)
    errors = capsys.readouterr().err
    assert code == DISPOSITIONS[Reason.NETWORK].exit_code, errors
    assert "Traceback" not in errors
