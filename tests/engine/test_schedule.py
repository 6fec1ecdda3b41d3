"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from jobs.methods.schedule import learning_rate
from launcher.spec.contenders import Training


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rate_warms_up_to_its_peak_and_decays(schedule: str) -> None:
    training = Training(steps=20, warmup_steps=4, learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(training, step) for step in range(1, 21)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_constant_rate_without_warmup() -> None:
    training = Training(steps=3, warmup_steps=0, learning_rate=0.1, schedule="constant")
    assert [learning_rate(training, step) for step in (1, 2, 3)] == [0.1, 0.1, 0.1]
