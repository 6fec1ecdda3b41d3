"""Training settings of the rehearsal server. Hosted services do not publish theirs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jobs.hosted import pricing
from launcher.spec.contenders import Lora, Rehearsal, Training
from launcher.spec.stages import TrainSettings
from launcher.spec.strict import Strict

_WARMUP_SHARE = 0.1
#: Checkpoints in each epoch.
_CHECKPOINTS_AN_EPOCH = 4


class Recipe(Strict):
    """Settings that all jobs of a server share."""

    lora: Lora = Lora(r=16, alpha=32, dropout=0.0)
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    dtype: str = "float32"
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 2048
    threads: Annotated[int, Field(ge=1)] = 2
    device: str = "cpu"
    #: Requests in one batch of generation.
    answer_rows: Annotated[int, Field(ge=1, le=1024)] = 16
    answer_dtype: str = "float32"

    @classmethod
    def of(cls, rehearsal: Rehearsal) -> Recipe:
        """The recipe of a rehearsed contender."""
        return cls(
            lora=rehearsal.lora,
            learning_rate=rehearsal.learning_rate,
            dtype=rehearsal.dtype,
            micro_batch_tokens=rehearsal.micro_batch_tokens,
            threads=rehearsal.threads,
            answer_rows=rehearsal.answer_rows,
        )


def train_settings(
    recipe: Recipe, *, examples: int, epochs: int, batch_rows: int, multiplier: float, seed: int
) -> TrainSettings:
    """Settings of the training engine for a job with these hyperparameters."""
    count = pricing.steps(examples, epochs, batch_rows)
    each = max(1, count // max(1, epochs * _CHECKPOINTS_AN_EPOCH))
    training = Training.model_validate(
        {
            "steps": count,
            "batch_rows": batch_rows,
            "micro_batch_tokens": recipe.micro_batch_tokens,
            # On a CPU padding is cheaper than attention over packed rows (docs/training.md).
            "packing": recipe.device != "cpu",
            "learning_rate": min(recipe.learning_rate * multiplier, 0.999),
            "warmup_steps": round(count * _WARMUP_SHARE),
            "max_length_tokens": recipe.micro_batch_tokens,
            "dtype": recipe.dtype,
            "evaluate_every_steps": max(1, count // epochs),
            "checkpoint_every_steps": each,
        }
    )
    return TrainSettings(
        task="rehearsal",
        prompt="chat",
        lora=recipe.lora,
        training=training,
        seed=seed,
        processes=1,
        threads=recipe.threads,
        device=recipe.device,
    )
