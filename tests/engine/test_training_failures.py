"""A training that cannot succeed fails with one message and the reason's exit code, without a traceback."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
from stage_harness import StageHarness

from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.stages import DirectoryModel, FetchSettings


@pytest.mark.parametrize(
    ("training", "reason", "message"),
    [
        ({"quantization": "nf4"}, Reason.UNSUPPORTED, "bitsandbytes"),
        ({"max_length_tokens": 16, "micro_batch_tokens": 16}, Reason.BAD_DATA, "at most 16 tokens"),
    ],
    ids=["no quantization library", "rows too long"],
)
def test_impossible_training_fails_with_its_reason(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    training: dict[str, Any],
    reason: Reason,
    message: str,
) -> None:
    if training.get("quantization") and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    harness = StageHarness(tmp_path, train_rows=2)
    harness.train("train", **training)
    assert harness.run("train") == DISPOSITIONS[reason].exit_code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_a_loss_that_is_not_finite_ends_training(
    harness: StageHarness, random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file, save_file

    directory = tmp_path / "model"
    shutil.copytree(random_model, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    inputs = {path.name: harness.store.put_input(path) for path in directory.iterdir()}
    harness.add("broken", "fetch", FetchSettings(source=DirectoryModel()), {}, inputs)
    harness.train("train", model="broken")
    assert harness.run("broken") == 0
    assert harness.run("train") == DISPOSITIONS[Reason.DIVERGED].exit_code
    assert "the loss is nan at step 1" in capsys.readouterr().err


def test_every_unknown_lora_target_is_named(
    harness: StageHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.train("train", lora={"targets": ("q_proj", "query", "value")})
    assert harness.run("train") == DISPOSITIONS[Reason.BAD_EXPERIMENT].exit_code
    errors = capsys.readouterr().err
    assert "'query'" in errors
    assert "'value'" in errors
    assert "'q_proj'" not in errors
