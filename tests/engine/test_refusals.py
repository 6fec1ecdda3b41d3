"""What cannot work is said in one message, with the reason's exit code and without a trace."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Bench
from launcher.outcome import DISPOSITIONS, Reason


@pytest.mark.parametrize(
    ("training", "reason", "message"),
    [
        ({"learning_rate": 0.99, "warmup_steps": 0, "max_gradient_norm": 1e30, "steps": 60}, Reason.DIVERGED, "loss is"),
        ({"quantization": "nf4"}, Reason.UNSUPPORTED, "bitsandbytes"),
        ({"max_length_tokens": 16, "micro_batch_tokens": 16}, Reason.BAD_DATA, "at most 16 tokens"),
    ],
    ids=["diverged", "no quantisation", "rows too long"],
)
def test_training_that_cannot_succeed_says_why(
    bench: Bench, capsys: pytest.CaptureFixture[str], training: dict[str, Any], reason: Reason, message: str
) -> None:
    bench.train("train", **training)
    assert bench.run("train") == DISPOSITIONS[reason].exit_code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_targets_the_model_does_not_have_are_all_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
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
