"""Learning rate by step: warmup, then constant, linear or cosine decay to zero. Pure."""

from __future__ import annotations

import math

from launcher.spec.contenders import Training


def learning_rate(training: Training, step: int) -> float:
    """The rate of step 1, 2, …, `training.steps`. Step 1 already learns; the step after the last would have rate 0."""
    peak, warmup = training.learning_rate, training.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    if training.schedule == "constant":
        return peak
    remaining = (training.steps + 1 - step) / max(training.steps + 1 - warmup, 1)
    if training.schedule == "linear":
        return peak * remaining
    return peak * 0.5 * (1 - math.cos(math.pi * remaining))
