"""The results half of a verdict: what the report stage measures.

Nothing in here depends on time, money or place: the same plan gives the same bytes, however
often it was interrupted. The JSON schema in docs/verdict.schema.json is generated from these models.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from launcher.spec.plan import canonical
from launcher.spec.strict import Strict
from launcher.spec.tasks import MeasureKind, TaskName

#: Serialization context of `Results.digest`.
_FOR_DIGEST = "digest"


class Measure(Strict):
    """A measure over the valid questions, with a 95 % interval that fits its kind.

    share: questions right, Wilson's interval. mean: a number for each question. ratio: sums over questions,
    divided. The intervals of the last two resample questions. `correct` and `of` are what was divided (of a
    mean the sum of its values and the questions); `correct` may be a mean over seeds.
    """

    value: float
    low: float
    high: float
    correct: float
    of: int
    #: Left out of the JSON for a share, and of the digest, which is then the same as before measures had kinds.
    kind: MeasureKind = "share"

    @model_serializer(mode="wrap")
    def _without_default_kind(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if self.kind == "share" or info.context == _FOR_DIGEST:
            del plain["kind"]
        return plain


class Tokens(Strict):
    """Tokens counted by the contender's own tokenizer; means over seeds. None if nothing was trained."""

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

    `difference` is a's value minus b's, with a paired bootstrap 95 % interval. `only_a`, `only_b` and `p_value`
    (McNemar's exact test) are None for a mean or a ratio, and if several seeds are averaged.
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
    """One answer. `correct` by the primary measure; None if that is a mean or a ratio, whose `value` is then given."""

    contender: str
    answer: str
    correct: bool | None
    reason: str | None
    #: Left out of the JSON if the primary measure is a share.
    value: float | None = None

    @model_serializer(mode="wrap")
    def _without_unused_value(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if self.value is None:
            del plain["value"]
        return plain


class Sample(Strict):
    """One question with the answers of every contender."""

    id: str
    question: str
    gold: str
    answers: list[SampleAnswer]


class DataResult(Strict):
    """The questions asked, and the known faults of the data."""

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
        """sha256 over the canonical JSON without the `kind` of measures."""
        return hashlib.sha256(canonical(self.model_dump(mode="json", context=_FOR_DIGEST))).hexdigest()
