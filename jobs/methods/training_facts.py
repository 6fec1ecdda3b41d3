"""Facts about a finished training: those that follow from its inputs, and those that were measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TrainingFacts:
    """Content of `training.json`. The same settings and data give the same facts."""

    steps: int
    batch_rows: int
    rows: int
    rows_too_long: int
    rows_limit_tokens: int
    rows_seen: int
    epochs: float
    tokens: int
    trained_tokens: int
    validation_rows: int
    validation_rows_too_long: int
    loss: float
    validation_loss: float | None
    trainable_parameters: int
    base_parameters: int
    attention: str
    base_model: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class MeasuredTraining:
    """Cost of a training, for the receipt: part of the manifest's `meta`, never digested."""

    training_seconds: float
    tokens: int
    trained_tokens: int
    throughput: dict[str, float]

    def to_json(self) -> dict[str, object]:
        return asdict(self)
