"""How this server trains: a hosted service does not say, so ours does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jobs.hosted import pricing
from launcher.spec.contenders import Lora, Rehearsal, Training
from launcher.spec.stages import TrainSettings
from launcher.spec.strict import Strict

_WARMUP_SHARE = 0.1
#: How many checkpoints an epoch leaves to resume from.
_CHECKPOINTS_AN_EPOCH = 4


class Recipe(Strict):
    """What is the same for every job of a server."""

    lora: Lora = Lora(r=16, alpha=32, dropout=0.0)
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    dtype: str = "float32"
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 2048
    threads: Annotated[int, Field(ge=1)] = 2
    device: str = "cpu"
    #: Requests that one forward pass answers.
    answer_rows: Annotated[int, Field(ge=1, le=1024)] = 16
    answer_dtype: str = "float32"

    @classmethod
    def of(cls, rehearsal: Rehearsal) -> Recipe:
        """The recipe of a contender that is rehearsed."""
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
    """The engine's settings for a job whose hyperparameters are decided."""
    count = pricing.steps(examples, epochs, batch_rows)
    each = max(1, count // max(1, epochs * _CHECKPOINTS_AN_EPOCH))
    training = Training.model_validate(
        {
            "steps": count,
            "batch_rows": batch_rows,
            "micro_batch_tokens": recipe.micro_batch_tokens,
            # On a CPU padding is cheaper than one long row's attention (docs/training.md).
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
        task="chat",
        prompt="chat",
        lora=recipe.lora,
        training=training,
        seed=seed,
        processes=1,
        threads=recipe.threads,
        device=recipe.device,
    )
