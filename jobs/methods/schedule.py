"""Learning-rate schedule: warmup, then constant, or linear or cosine decay to zero. Pure."""

from __future__ import annotations

import math

from launcher.spec.contenders import Training


def learning_rate(training: Training, step: int) -> float:
    """The rate of a step from 1 to `training.steps`. It is never 0: decay ends at step `training.steps` + 1."""
    peak, warmup = training.learning_rate, training.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    if training.schedule == "constant":
        return peak
    remaining = (training.steps + 1 - step) / max(training.steps + 1 - warmup, 1)
    if training.schedule == "linear":
        return peak * remaining
    return peak * 0.5 * (1 - math.cos(math.pi * remaining))
