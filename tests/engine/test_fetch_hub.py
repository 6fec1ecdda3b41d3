"""From a hub at one commit: the files that make a model, never a pickle; a token is used and never shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Bench
from hub_server import COMMIT, Hub

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


def fetch(bench: Bench, source: HubModel | HubData, url: str, token: str = "") -> tuple[int, str]:
    """Exit code and log of a fetch stage in a process of its own: the library reads its settings at import."""
    bench.add("fetch-hub", "fetch", FetchSettings(source=source), {})
    process = bench.start("fetch-hub", HF_ENDPOINT=url, HF_TOKEN=token, HF_HUB_OFFLINE="0")
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def model_files(random_model: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in random_model.iterdir()}
    return {**files, "pytorch_model.bin": b"pickle", "modeling.py": b"import os", "onnx/config.json": b"{}"}


def test_a_model_is_fetched_without_pickles_and_code(bench: Bench, hub: Start, random_model: Path) -> None:
    server = hub("models", model_files(random_model))
    code, output = fetch(bench, HubModel(repository="maker/tiny", revision=COMMIT), server.url)
    assert code == 0, output
    fetched = {path.name for path in bench.output("fetch-hub").iterdir()} - {"_SUCCESS.json"}
    assert fetched == {path.name for path in random_model.iterdir()}
    assert not [path for path in server.requests if path.endswith((".bin", ".py"))]


def test_a_token_opens_a_private_model_and_is_never_printed(
    bench: Bench, hub: Start, random_model: Path
) -> None:
    server = hub("models", model_files(random_model), TOKEN)
    source = HubModel(repository="maker/tiny", revision=COMMIT)
    code, output = fetch(bench, source, server.url, "hf_wrongwrongwrong")
    assert code == DISPOSITIONS[Reason.NO_SUCH_MODEL].exit_code, output
    assert "HF_TOKEN" in output
    code, opened = fetch(bench, source, server.url, TOKEN)
    assert code == 0, opened
    assert "hf_" not in output + opened
    assert "Traceback" not in output + opened


def test_named_data_comes_under_its_own_names(bench: Bench, hub: Start) -> None:
    server = hub("datasets", {"data/train.csv": b"a,b\n", "test.csv": b"c\n", "other.csv": b"x"})
    source = HubData(repository="maker/tiny", revision=COMMIT, files=("data/train.csv", "test.csv"))
    code, output = fetch(bench, source, server.url)
    assert code == 0, output
    assert set(bench.store.open(f"stages/{bench.key('fetch-hub')}").manifest.files) == {
        "data/train.csv",
        "test.csv",
    }


@pytest.mark.parametrize(
    ("repository", "revision", "reason"),
    [
        ("maker/none", COMMIT, Reason.NO_SUCH_MODEL),
        ("maker/tiny", "f" * 40, Reason.NO_SUCH_MODEL),
        ("not a name", COMMIT, Reason.NO_SUCH_MODEL),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    bench: Bench, hub: Start, repository: str, revision: str, reason: Reason
) -> None:
    server = hub("models", {"config.json": b"{}"})
    code, output = fetch(bench, HubModel(repository=repository, revision=revision), server.url)
    assert code == DISPOSITIONS[reason].exit_code, output
    assert "Traceback" not in output


def test_a_hub_that_does_not_answer_is_a_network_failure(bench: Bench) -> None:
    code, output = fetch(bench, HubModel(repository="maker/tiny", revision=COMMIT), "http://127.0.0.1:9")
    assert code == DISPOSITIONS[Reason.NETWORK].exit_code, output
    assert "Traceback" not in output
