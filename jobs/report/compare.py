"""Paired comparison of two contenders, and means over seeds. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from jobs.measures.row_score import mean
from jobs.measures.statistics import mcnemar_exact, paired_difference, ratio_difference, wilson
from launcher.spec.results import Comparison, Measure
from launcher.spec.tasks import MeasureKind

#: Seed of the bootstrap: part of the results, so fixed.
BOOTSTRAP_SEED = 20230824
_MEAN_DRAWS = 2000

#: A row of scores.jsonl, and all rows of one.
Row = dict[str, Any]
Scores = Sequence[Row]


def value_of(row: Row, measure: str, kind: MeasureKind) -> float | None:
    """The value of a measure in one row of scores.jsonl; None for a ratio of nothing."""
    if kind == "ratio":
        part, whole = row["counts"][measure]
        return part / whole if whole else None
    value = row["scores"].get(measure)
    return float(bool(value)) if kind == "share" else float(value or 0.0)


def mean_measure(measures: Sequence[Measure]) -> Measure:
    """Mean over seeds of a share or a ratio.

    The interval is Wilson's for the mean share of the same questions: seeds add no questions.
    """
    if len(measures) == 1:
        return measures[0]
    of = measures[0].of
    correct = sum(measure.correct for measure in measures) / len(measures)
    low, high = wilson(round(correct), of)
    value = correct / of if of else 0.0
    return Measure(value=value, low=low, high=high, correct=correct, of=of, kind=measures[0].kind)


def mean_over_seeds(
    measure: str, seeds: Sequence[Scores], is_member: Callable[[Row], bool] = lambda _row: True
) -> Measure:
    """A measure of kind mean over several seeds: each row counts once, by its mean over seeds."""
    values = [
        fmean(value_of(row, measure, "mean") or 0.0 for row in same)
        for same in zip(*seeds, strict=True)
        if same[0]["valid_gold"] and is_member(same[0])
    ]
    return Measure.model_validate(mean(values))


def compare(
    a: str,
    scores_a: Sequence[Scores],
    b: str,
    scores_b: Sequence[Scores],
    measure: str,
    kind: MeasureKind = "share",
) -> Comparison:
    """Contender `a` minus contender `b` on the rows whose gold is valid, a mean over seeds on each side."""
    single = kind == "share" and len(scores_a) == len(scores_b) == 1
    only_a = only_b = None
    if kind == "ratio":
        pairs_a, pairs_b = _pairs(scores_a, measure), _pairs(scores_b, measure)
        rows = len(pairs_a)
        difference, low, high = ratio_difference(pairs_a, pairs_b, BOOTSTRAP_SEED)
    else:
        values_a, values_b = _values(scores_a, measure, kind), _values(scores_b, measure, kind)
        rows = len(values_a)
        if single:
            only_a = sum(x > y for x, y in zip(values_a, values_b, strict=True))
            only_b = sum(x < y for x, y in zip(values_a, values_b, strict=True))
            right_a, right_b = [value == 1 for value in values_a], [value == 1 for value in values_b]
            difference, low, high = paired_difference(right_a, right_b, BOOTSTRAP_SEED)
        else:
            differences = [x - y for x, y in zip(values_a, values_b, strict=True)]
            difference, low, high = _mean_difference(differences)
    return Comparison(
        a=a,
        b=b,
        measure=measure,
        rows=rows,
        difference=difference,
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=None if only_a is None or only_b is None else mcnemar_exact(only_a, only_b),
    )


def _valid(seeds: Sequence[Scores]) -> list[tuple[Row, ...]]:
    """Rows with a valid gold, each with its score by every seed."""
    return [same for same in zip(*seeds, strict=True) if same[0]["valid_gold"]]


def _values(seeds: Sequence[Scores], measure: str, kind: MeasureKind) -> list[float]:
    """Per valid row the mean over seeds; of a share, how many of the seeds are right."""
    return [sum(value_of(row, measure, kind) or 0.0 for row in same) / len(same) for same in _valid(seeds)]


def _pairs(seeds: Sequence[Scores], measure: str) -> list[tuple[float, float]]:
    """Per valid row (part, whole) of a ratio, summed over seeds."""
    return [
        (
            sum(row["counts"][measure][0] for row in same),
            sum(row["counts"][measure][1] for row in same),
        )
        for same in _valid(seeds)
    ]


def _mean_difference(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences with a percentile bootstrap interval over rows."""
    if not differences:
        return 0.0, 0.0, 0.0
    generator, of = random.Random(BOOTSTRAP_SEED), len(differences)
    means = sorted(sum(generator.choices(differences, k=of)) / of for _ in range(_MEAN_DRAWS))
    return sum(differences) / of, means[round(0.025 * _MEAN_DRAWS)], means[round(0.975 * _MEAN_DRAWS) - 1]
