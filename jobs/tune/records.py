"""Records of stage kind `tune`: facts of the upload, `tuned.json`, `training.json`, points of `curve.jsonl`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Statistics = dict[str, dict[str, float | int]]


@dataclass(frozen=True)
class UploadFacts:
    """Size of a valid upload. Tokens are counted as the service bills them."""

    rows: int
    validation_rows: int
    tokens_an_epoch: int
    epochs: int
    statistics: Statistics

    #: Upper bound of the tokens of one epoch, by the rule of the study's estimate.
    most_tokens_an_epoch: int

    @property
    def expected_tokens(self) -> int:
        return self.tokens_an_epoch * self.epochs


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a finished job, as the service reports them."""

    n_epochs: int | str | None
    batch_size: int | str | None
    learning_rate_multiplier: float | str | None


@dataclass(frozen=True)
class TunedModel:
    """`tuned.json`: the tuned model. `billed_tokens` is None if the service does not report them."""

    model: str
    job: str
    base: str
    hyperparameters: Hyperparameters
    billed_tokens: int | None
    expected_tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CurvePoint:
    """A step of the result file, as `curve.jsonl` holds it."""

    step: int
    loss: float
    validation_loss: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TrainingRecord:
    """`training.json`: size, tokens and last losses of the training. `tokens` equals `trained_tokens`."""

    rows: int
    validation_rows: int
    expected_tokens: int
    statistics: Statistics
    steps: int | None
    epochs: int | str | None
    trained_tokens: int
    tokens: int
    billed_tokens: int | None
    billed_less_expected_tokens: int | None
    loss: float | None
    validation_loss: float | None
    rehearsed_by: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
