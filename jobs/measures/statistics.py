"""Intervals and paired tests for shares, means and ratios. Standard library only."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist


def wilson(correct: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the proportion `correct / of`; (0, 1) if nothing was asked.

    Raises ValueError unless 0 <= correct <= of and 0 < level < 1.
    """
    if not 0 <= correct <= of or not 0 < level < 1:
        raise ValueError(f"no proportion: {correct} of {of} at level {level}")
    if of == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = correct / of
    spread = z * math.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    denominator = 1 + z * z / of
    centre = share + z * z / (2 * of)
    # At the ends the bound is 0 or 1 exactly; arithmetic would leave it a rounding error away.
    low = 0.0 if correct == 0 else (centre - spread) / denominator
    high = 1.0 if correct == of else (centre + spread) / denominator
    return low, high


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test: `only_a` rows only A had right, `only_b` rows only B had right.

    The rows on which both agree carry no information. 1.0 without disagreement.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts cannot be negative: {only_a}, {only_b}")
    of, fewer = only_a + only_b, min(only_a, only_b)
    # Integers until the last division: exact for any count, no underflow on the way.
    term = tail = 1
    for k in range(fewer):
        term = term * (of - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << of)) if of else 1.0


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], seed: int = 0, level: float = 0.95, draws: int = 10_000
) -> tuple[float, float, float]:
    """Accuracy of `a` minus accuracy of `b` on the same rows, with a percentile bootstrap interval.

    Rows are drawn in pairs, so that what makes a question hard for both cancels. Deterministic in
    `seed`. Returns (difference, low, high); (0, 0, 0) for no rows. Raises ValueError if the
    lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"not paired: {len(a)} and {len(b)} rows")
    if not a:
        return 0.0, 0.0, 0.0
    of = len(a)
    only_a = sum(1 for x, y in zip(a, b, strict=True) if x and not y)
    only_b = sum(1 for x, y in zip(a, b, strict=True) if y and not x)
    # A resample of n pairs is a multinomial of (+1, -1, 0): two binomial draws instead of n picks.
    generator = random.Random(seed)
    differences = sorted(_resample(generator, only_a, only_b, of) / of for _ in range(draws))
    tail = (1 - level) / 2
    return (only_a - only_b) / of, quantile(differences, tail), quantile(differences, 1 - tail)


def _resample(generator: random.Random, only_a: int, only_b: int, of: int) -> int:
    gained = _binomial(generator, of, only_a / of)
    rest = of - only_a
    lost = _binomial(generator, of - gained, only_b / rest) if rest else 0
    return gained - lost


def _binomial(generator: random.Random, of: int, probability: float) -> int:
    """Number of successes, by jumping from one success to the next: time in the successes, not the trials."""
    if probability <= 0 or of == 0:
        return 0
    if probability > 0.5:
        return of - _binomial(generator, of, 1 - probability)
    successes, position, log_failure = 0, 0, math.log1p(-probability)
    while True:
        position += int(math.log(1.0 - generator.random()) / log_failure) + 1
        if position > of:
            return successes
        successes += 1


def mean_interval(
    values: Sequence[float], seed: int = 0, level: float = 0.95, draws: int = 2_000
) -> tuple[float, float, float]:
    """(mean, low, high) with a percentile bootstrap interval over the values; (0, 0, 0) for none.

    Of paired differences it is the interval of the difference of two means. Deterministic in `seed`.
    """
    if not values:
        return 0.0, 0.0, 0.0
    generator, of = random.Random(seed), len(values)
    drawn = sorted(sum(generator.choices(values, k=of)) / of for _ in range(draws))
    tail = (1 - level) / 2
    return sum(values) / of, quantile(drawn, tail), quantile(drawn, 1 - tail)


def ratio_difference(
    a: Sequence[tuple[float, float]],
    b: Sequence[tuple[float, float]],
    seed: int = 0,
    level: float = 0.95,
    draws: int = 2_000,
) -> tuple[float, float, float]:
    """Ratio of `a` minus ratio of `b`, each (part, whole) a row, rows resampled in pairs; (0, 0, 0) for none."""
    if len(a) != len(b):
        raise ValueError(f"not paired: {len(a)} and {len(b)} rows")
    if not a:
        return 0.0, 0.0, 0.0
    generator, pairs = random.Random(seed), list(zip(a, b, strict=True))

    def difference(rows: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float:
        return _quotient([x for x, _ in rows]) - _quotient([y for _, y in rows])

    drawn = sorted(difference(generator.choices(pairs, k=len(pairs))) for _ in range(draws))
    tail = (1 - level) / 2
    return difference(pairs), quantile(drawn, tail), quantile(drawn, 1 - tail)


def _quotient(pairs: Sequence[tuple[float, float]]) -> float:
    whole = sum(w for _, w in pairs)
    return sum(p for p, _ in pairs) / whole if whole else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics (numpy's default)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
