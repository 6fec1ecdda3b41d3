"""Whom a verdict compares."""

from __future__ import annotations

from jobs.report.stage import _pairs


def test_everybody_is_compared_with_the_baseline_first_and_then_with_each_other() -> None:
    assert _pairs(["untuned", "lora", "hosted"], "untuned") == [
        ("lora", "untuned"),
        ("hosted", "untuned"),
        ("lora", "hosted"),
    ]


def test_one_contender_is_compared_with_nobody() -> None:
    assert _pairs(["lora"], "lora") == []
