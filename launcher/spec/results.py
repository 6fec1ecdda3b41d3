"""The results half of a verdict: what the report stage measures and everybody may digest.

Nothing in here depends on time, money or place: the same plan gives the same bytes, however
often it was killed. The JSON schema in docs/verdict.schema.json is generated from these models.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from launcher.spec.plan import canonical
from launcher.spec.strict import Strict
from launcher.spec.tasks import TaskName


class Measure(Strict):
    """A share of the valid questions, with its 95 % Wilson interval. `correct` may be a mean over seeds."""

    value: float
    low: float
    high: float
    correct: float
    of: int


class Tokens(Strict):
    """Tokens counted by the contender's own tokenizer; means over seeds. None where nothing was trained."""

    prompt: float
    answer: float
    trained: float | None = None
    seen_in_training: float | None = None


class LossPoint(Strict):
    """One logged step of training."""

    step: int
    loss: float
    validation_loss: float | None = None


class SeedResult(Strict):
    """One tuned model, or the one untuned one (seed None)."""

    seed: int | None
    measures: dict[str, Measure]
    curve: list[LossPoint] = []


class ContenderResult(Strict):
    """One line of the verdict."""

    name: str
    kind: Literal["lora", "prompted", "hosted"]
    model: str
    #: The open model that answered in place of a hosted `model`, in a rehearsal.
    rehearsed_by: str | None = None
    measures: dict[str, Measure]
    seeds: list[SeedResult]
    tokens: Tokens
    breakdowns: dict[str, dict[str, Measure]]
    reasons: dict[str, int]


class Comparison(Strict):
    """Two contenders on the same rows, by the primary measure.

    `difference` is a minus b as a share of valid questions, with a paired bootstrap 95 %
    interval; `p_value` is McNemar's exact test (None where several seeds are averaged).
    """

    a: str
    b: str
    measure: str
    rows: int
    difference: float
    low: float
    high: float
    only_a: int | None
    only_b: int | None
    p_value: float | None


class SampleAnswer(Strict):
    contender: str
    answer: str
    correct: bool
    reason: str | None


class Sample(Strict):
    """One question with everybody's answer."""

    id: str
    question: str
    gold: str
    answers: list[SampleAnswer]


class DataResult(Strict):
    """What was asked, and what is wrong with it."""

    source: str
    rows: dict[str, int]
    digests: dict[str, str]
    valid_gold: int
    leakage: dict[str, Any]
    known_faults: list[str]


class Results(Strict):
    """The whole digested half."""

    format: Literal[1] = 1
    experiment: str
    task: TaskName
    primary: str
    baseline: str
    data: DataResult
    contenders: list[ContenderResult]
    comparisons: list[Comparison]
    samples: list[Sample]
    caveats: list[str]

    def digest(self) -> str:
        """sha256 over the canonical JSON."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()
