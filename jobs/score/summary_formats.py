"""A summary of scores as JSON and as text, for `launcher score`."""

from __future__ import annotations

from typing import Any


def summary_json(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with its measures as plain fractions, and their intervals in a key of their own."""
    measures = summary["measures"]
    return {
        "task": summary["task"],
        "rows": summary["rows"],
        "valid_gold": summary["valid_gold"],
        "primary": summary["primary"],
        **{name: measure["value"] for name, measure in measures.items()},
        "intervals": {name: [measure["low"], measure["high"]] for name, measure in measures.items()},
        **_mutants(summary),
        "flags": summary["flags"],
        "notes": summary["notes"],
        "reasons": summary["reasons"],
        "breakdowns": {
            group: {
                value: {"rows": m[summary["primary"]]["of"], **{name: m[name]["value"] for name in m}}
                for value, m in parts.items()
            }
            for group, parts in summary["breakdowns"].items()
        },
    }


def _mutants(summary: dict[str, Any]) -> dict[str, Any]:
    """The kill rate and its parts, without the surviving mutants: `--survivors` writes those to a file."""
    if "mutants" not in summary:
        return {}
    found = {name: value for name, value in summary["mutants"].items() if name != "survivors"}
    return {"mutants_killed": found["rate"], "mutants": found}


def summary_text(summary: dict[str, Any]) -> str:
    """The measures with their intervals, then the reasons of wrong answers, most frequent first."""
    lines = [f"{summary['task']}: {summary['rows']} rows, {summary['valid_gold']} with valid gold", ""]
    width = max(map(len, summary["measures"]), default=0)
    for name, measure in summary["measures"].items():
        if measure.get("kind") == "mean":
            interval = f"95 % {measure['low']:.4g} to {measure['high']:.4g}"
            lines.append(f"{name:{width}}  {measure['value']:7.4g}  {interval}  (mean of {measure['of']})")
            continue
        interval = f"95 % {100 * measure['low']:.1f} to {100 * measure['high']:.1f}"
        lines.append(
            f"{name:{width}}  {100 * measure['value']:5.1f} %  {interval}  ({measure['correct']} of {measure['of']})"
        )
    if "mutants" in summary:
        mutants = summary["mutants"]
        counted = mutants["mutants"] - mutants["equivalent"]
        lines.append(
            f"{'mutants_killed':{width}}  {100 * mutants['rate']:5.1f} %  ({counted - mutants['missed']} of {counted})"
        )
    if summary["reasons"]:
        by_count = sorted(summary["reasons"].items(), key=lambda item: -item[1])
        lines += ["", *(f"{count:6}  {reason}" for reason, count in by_count)]
    return "\n".join(lines)
