"""Which contenders a report compares."""

from __future__ import annotations

from jobs.report.stage import _pairs


def test_contenders_are_compared_with_the_baseline_first_and_then_with_each_other() -> None:
    assert _pairs(["untuned", "lora", "hosted"], "untuned") == [
        ("lora", "untuned"),
        ("hosted", "untuned"),
        ("lora", "hosted"),
    ]


def test_a_single_contender_has_no_comparison() -> None:
    assert _pairs(["lora"], "lora") == []
