"""Records of the outputs of `predict` with an open model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Prediction:
    """The answer to one row. `answer_tokens` excludes the end token."""

    answer: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int
    #: The batch's seconds divided by its rows: a single row's time is not measured.
    latency_s: float

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class PredictionFacts:
    """Content of `prediction.json`. `cut_at_limit` counts answers that reached the length limit."""

    rows: int
    prompt_tokens: int
    answer_tokens: int
    cut_at_limit: int
    batches: int
    engine: str
    dtype: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)
