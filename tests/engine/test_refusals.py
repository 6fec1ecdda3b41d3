"""What cannot work is said in one message, with the reason's exit code and without a trace."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import Bench

from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.stages import DirectoryModel, FetchSettings


@pytest.mark.parametrize(
    ("training", "reason", "message"),
    [
        ({"quantization": "nf4"}, Reason.UNSUPPORTED, "bitsandbytes"),
        ({"max_length_tokens": 16, "micro_batch_tokens": 16}, Reason.BAD_DATA, "at most 16 tokens"),
    ],
    ids=["no quantisation", "rows too long"],
)
def test_training_that_cannot_succeed_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    training: dict[str, Any],
    reason: Reason,
    message: str,
) -> None:
    if training.get("quantization") and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed here")
    bench = Bench(tmp_path, train_rows=2)
    bench.train("train", **training)
    assert bench.run("train") == DISPOSITIONS[reason].exit_code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_a_loss_that_is_no_number_ends_training_before_it_reaches_the_weights(
    bench: Bench, random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import load_file, save_file

    directory = tmp_path / "model"
    shutil.copytree(random_model, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    inputs = {path.name: bench.store.put_input(path) for path in directory.iterdir()}
    bench.add("broken", "fetch", FetchSettings(source=DirectoryModel()), {}, inputs)
    bench.train("train", model="broken")
    assert bench.run("broken") == 0
    assert bench.run("train") == DISPOSITIONS[Reason.DIVERGED].exit_code
    assert "the loss is nan at step 1" in capsys.readouterr().err


def test_targets_the_model_does_not_have_are_all_named(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.train("train", lora={"targets": ("q_proj", "query", "value")})
    assert bench.run("train") == DISPOSITIONS[Reason.BAD_EXPERIMENT].exit_code
    errors = capsys.readouterr().err
    assert "'query'" in errors
    assert "'value'" in errors
    assert "'q_proj'" not in errors


def test_a_failure_of_several_workers_is_told_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.train("train", processes=2, lora={"targets": ("query",)})
    assert bench.run("train") == DISPOSITIONS[Reason.BAD_EXPERIMENT].exit_code
    assert capsys.readouterr().err.count("'query'") == 1
