"""Intervals and tests agree with scipy."""

import pytest
from scipy.stats import binomtest

from jobs.measures.statistics import mcnemar_exact, paired_difference, wilson


@pytest.mark.parametrize(
    ("correct", "of"), [(0, 1), (1, 1), (0, 568), (568, 568), (49, 568), (300, 568), (7, 9), (1, 10_000)]
)
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(correct: int, of: int, level: float) -> None:
    known = binomtest(correct, of).proportion_ci(level, method="wilson")
    assert wilson(correct, of, level) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_knows_nothing_from_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "of", "level"), [(2, 1, 0.95), (-1, 1, 0.95), (1, 2, 0.0), (1, 2, 1.0)])
def test_wilson_refuses_what_is_no_proportion(correct: int, of: int, level: float) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(correct, of, level)


@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (1, 0), (0, 5), (5, 5), (3, 12), (40, 60), (100, 3), (2000, 2100)]
)
def test_mcnemar_is_the_binomial_test(a: int, b: int) -> None:
    known = binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(known, rel=1e-9)


def test_mcnemar_does_not_underflow() -> None:
    assert 0 < mcnemar_exact(0, 1000) < 1e-300


def test_bootstrap_gives_the_difference_and_an_interval_around_it() -> None:
    a = [True] * 70 + [False] * 30
    b = [True] * 50 + [False] * 50
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(0.2)
    # Twenty of a hundred rows differ, all one way: the standard error is sqrt(0.2 * 0.8 / 100).
    assert low == pytest.approx(0.2 - 1.96 * 0.04, abs=0.012)
    assert high == pytest.approx(0.2 + 1.96 * 0.04, abs=0.012)


def test_bootstrap_has_the_spread_of_picking_rows() -> None:
    import random

    rng = random.Random(3)
    a, b = [rng.random() < 0.6 for _ in range(80)], [rng.random() < 0.4 for _ in range(80)]
    picked = sorted(sum(a[i] - b[i] for i in rng.choices(range(80), k=80)) / 80 for _ in range(10_000))
    _, low, high = paired_difference(a, b, seed=1)
    assert (low, high) == pytest.approx((picked[250], picked[9750]), abs=0.02)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    a, b = [True, False, True] * 20, [False, False, True] * 20
    assert paired_difference(a, b, seed=5) == paired_difference(a, b, seed=5)
    assert paired_difference(b, a, seed=5)[0] == -paired_difference(a, b, seed=5)[0]


def test_bootstrap_at_its_edges() -> None:
    assert paired_difference([], []) == (0.0, 0.0, 0.0)
    assert paired_difference([True] * 9, [True] * 9) == (0.0, 0.0, 0.0)
    assert paired_difference([True] * 9, [False] * 9) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="not paired"):
        paired_difference([True], [])
