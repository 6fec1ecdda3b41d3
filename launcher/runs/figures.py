"""Measures, differences and dollars as text, as the verdict's summary and the report show them."""

from __future__ import annotations

from launcher.spec.results import Comparison, Measure, Results
from launcher.spec.tasks import MeasureKind


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def interval(measure: Measure) -> str:
    """A measure with its 95 % interval, in the unit of its kind."""
    if measure.kind == "mean":
        return f"{measure.value:.4g} [{measure.low:.4g}, {measure.high:.4g}]"
    return f"{percent(measure.value)} [{100 * measure.low:.1f}, {100 * measure.high:.1f}]"


def difference(comparison: Comparison, kind: MeasureKind) -> str:
    """A difference of two measures, in points or in the unit of their kind."""
    if kind == "mean":
        return f"{comparison.difference:+.4g} [{comparison.low:+.4g}, {comparison.high:+.4g}]"
    return (
        f"{100 * comparison.difference:+.1f} points "
        f"[{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"
    )


def primary_kind(results: Results) -> MeasureKind:
    """The kind of the results' primary measure."""
    return results.contenders[0].measures[results.primary].kind


def usd_text(value: float | None, *, rehearsed: bool = False) -> str:
    """Dollars with four decimals; `not priced` if there is no price."""
    if value is None:
        return "not priced"
    return f"would have cost ${value:,.4f}" if rehearsed else f"${value:,.4f}"
