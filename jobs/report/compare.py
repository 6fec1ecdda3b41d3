"""Paired comparison of two contenders, and means over seeds. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from jobs.measures.statistics import mcnemar_exact, paired_difference, wilson
from launcher.spec.results import Comparison, Measure

#: Seed of the bootstrap: part of the results, so fixed.
BOOTSTRAP_SEED = 20230824
_MEAN_DRAWS = 2000

Scores = Sequence[dict[str, Any]]  # rows of one scores.jsonl


def mean_measure(measures: Sequence[Measure]) -> Measure:
    """Mean over seeds. The interval is Wilson's for the mean share of the same questions: seeds add no questions."""
    if len(measures) == 1:
        return measures[0]
    of = measures[0].of
    correct = sum(measure.correct for measure in measures) / len(measures)
    low, high = wilson(round(correct), of)
    return Measure(value=correct / of if of else 0.0, low=low, high=high, correct=correct, of=of)


def compare(
    a: str, scores_a: Sequence[Scores], b: str, scores_b: Sequence[Scores], measure: str
) -> Comparison:
    """Contender `a` minus contender `b` on the rows whose gold is valid, a mean over seeds on each side."""
    shares_a, shares_b = _shares(scores_a, measure), _shares(scores_b, measure)
    single = len(scores_a) == len(scores_b) == 1
    only_a = sum(x > y for x, y in zip(shares_a, shares_b, strict=True))
    only_b = sum(x < y for x, y in zip(shares_a, shares_b, strict=True))
    if single:
        right_a, right_b = [share == 1 for share in shares_a], [share == 1 for share in shares_b]
        difference, low, high = paired_difference(right_a, right_b, BOOTSTRAP_SEED)
    else:
        difference, low, high = _mean_difference([x - y for x, y in zip(shares_a, shares_b, strict=True)])
    return Comparison(
        a=a,
        b=b,
        measure=measure,
        rows=len(shares_a),
        difference=difference,
        low=low,
        high=high,
        only_a=only_a if single else None,
        only_b=only_b if single else None,
        p_value=mcnemar_exact(only_a, only_b) if single else None,
    )


def _shares(seeds: Sequence[Scores], measure: str) -> list[float]:
    """Per valid row, the share of seeds that answered it right."""
    rows = zip(*seeds, strict=True)
    return [
        sum(bool(row["scores"].get(measure)) for row in same) / len(same)
        for same in rows
        if same[0]["valid_gold"]
    ]


def _mean_difference(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences with a percentile bootstrap interval over rows."""
    if not differences:
        return 0.0, 0.0, 0.0
    generator, of = random.Random(BOOTSTRAP_SEED), len(differences)
    means = sorted(sum(generator.choices(differences, k=of)) / of for _ in range(_MEAN_DRAWS))
    return sum(differences) / of, means[round(0.025 * _MEAN_DRAWS)], means[round(0.975 * _MEAN_DRAWS) - 1]
