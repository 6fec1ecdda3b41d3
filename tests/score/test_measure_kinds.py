"""Shares, means and ratios: values and intervals over rows and seeds, and comparisons."""

from __future__ import annotations

import pytest

from jobs.measures.row_score import RowScore, measure, summarise
from jobs.measures.statistics import mean_interval, ratio_difference
from jobs.report.compare import compare, mean_over_seeds


def row(number: int, value: float, part: int, whole: int, group: str = "a") -> RowScore:
    return RowScore(
        f"r{number}",
        "answer",
        "gold",
        True,
        {"right": value == 1, "level": value},
        groups={"group": group},
        counts={"parts": (part, whole)},
    )


ROWS = [row(1, 1.0, 2, 2), row(2, 0.5, 1, 2), row(3, 0.0, 0, 4, "b"), row(4, 0.25, 1, 4, "b")]


def test_a_measure_has_the_value_and_interval_of_its_kind() -> None:
    share, mean, ratio = (
        measure("share", "right", ROWS),
        measure("mean", "level", ROWS),
        measure("ratio", "parts", ROWS),
    )
    assert (share["value"], share["correct"], share["of"], share.get("kind")) == (0.25, 1, 4, None)
    assert (mean["value"], mean["correct"], mean["of"], mean["kind"]) == (0.4375, 1.75, 4, "mean")
    assert (ratio["value"], ratio["correct"], ratio["of"], ratio["kind"]) == (4 / 12, 4, 12, "ratio")
    for one in (share, mean, ratio):
        assert float(one["low"]) < float(one["value"]) < float(one["high"])


def test_a_summary_without_kinds_reads_scores_as_shares_and_counts_as_ratios() -> None:
    found = summarise("t", "right", ROWS)
    assert {name: one.get("kind", "share") for name, one in found["measures"].items()} == {
        "right": "share",
        "level": "share",
        "parts": "ratio",
    }


def test_a_summary_breaks_down_a_primary_ratio_too() -> None:
    found = summarise("t", "parts", ROWS, {"right": "share", "level": "mean", "parts": "ratio"})
    assert found["breakdowns"]["group"]["a"]["parts"]["value"] == 0.75
    assert found["breakdowns"]["group"]["b"]["level"]["value"] == 0.125


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    import random

    generator = random.Random(7)
    covered = 0
    for seed in range(100):
        low, high = mean_interval([generator.random() for _ in range(60)], seed, draws=400)[1:]
        covered += low <= 0.5 <= high
    assert 88 <= covered <= 100


def test_no_rows_have_no_interval() -> None:
    assert mean_interval([]) == (0.0, 0.0, 0.0)
    assert ratio_difference([], []) == (0.0, 0.0, 0.0)


def scores(*values: float) -> list[dict[str, object]]:
    return [row(number, value, int(4 * value), 4).to_json() for number, value in enumerate(values)]


def test_means_are_compared_by_their_paired_difference_without_mcnemar() -> None:
    found = compare("a", [scores(1, 0.5, 0.75)], "b", [scores(0.5, 0.25, 0.75)], "level", "mean")
    assert found.difference == 0.25
    assert found.low <= 0.25 <= found.high
    assert found.only_a is found.only_b is found.p_value is None


def test_ratios_are_compared_by_resampled_rows() -> None:
    found = compare("a", [scores(1, 0.5, 0.5)], "b", [scores(0.5, 0.5, 0)], "parts", "ratio")
    assert found.difference == pytest.approx(8 / 12 - 4 / 12)
    assert found.p_value is None


def test_seeds_of_a_mean_add_no_rows() -> None:
    found = mean_over_seeds("level", [scores(1, 0), scores(0, 0)])
    assert (found.value, found.of, found.kind) == (0.25, 2, "mean")


def test_shares_are_compared_as_before() -> None:
    found = compare("a", [scores(1, 1, 0)], "b", [scores(1, 0, 0)], "right")
    assert (found.only_a, found.only_b, found.difference) == (1, 0, 1 / 3)
    assert found.p_value == 1.0
