"""The score of a row, and the summary of many: the same shape for every task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.measures.statistics import mean_interval, quantile, wilson
from launcher.spec.tasks import MeasureKind

_DRAWS = 2_000


@dataclass(frozen=True)
class RowScore:
    """One answer's score.

    `scores` hold a value for each measure of kind share (right or wrong) and mean (any number); `counts` a
    (part, whole) for each ratio, summed over rows before they are divided. `flags` are counted, and so are the
    different values of `notes`.
    """

    id: str
    answer: str
    gold: str
    valid_gold: bool
    scores: Mapping[str, bool | float]
    reason: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "id": self.id,
            "answer": self.answer,
            "gold": self.gold,
            "valid_gold": self.valid_gold,
            "scores": dict(self.scores),
            "reason": self.reason,
            "groups": dict(self.groups),
        }
        if self.flags:
            value["flags"] = dict(self.flags)
        if self.notes:
            value["notes"] = dict(self.notes)
        if self.counts:
            value["counts"] = {name: list(pair) for name, pair in self.counts.items()}
        return value


def summarise(
    task: str, primary: str, scores: Sequence[RowScore], kinds: Mapping[str, MeasureKind] | None = None
) -> dict[str, Any]:
    """The summary that `score` commits: measures with 95 % intervals over rows with valid gold, and breakdowns.

    `kinds` names the kind of each measure; without it `scores` are shares, and `counts` ratios.
    """
    valid = [score for score in scores if score.valid_gold]
    of_rows, of_counts = _names(scores, "scores"), _names(scores, "counts")
    kinds = {**dict.fromkeys(of_rows, "share"), **dict.fromkeys(of_counts, "ratio"), **(kinds or {})}
    broken_down = [*of_rows, *(name for name in of_counts if name == primary)]
    return {
        "task": task,
        "rows": len(scores),
        "valid_gold": len(valid),
        "primary": primary,
        "measures": {name: measure(kinds[name], name, valid) for name in (*of_rows, *of_counts)},
        "breakdowns": {
            group: {
                value: {name: measure(kinds[name], name, members) for name in broken_down}
                for value, members in sorted(_grouped(valid, group).items())
            }
            for group in _names(scores, "groups")
        },
        "flags": {name: sum(s.flags.get(name, False) for s in valid) for name in _names(scores, "flags")},
        "notes": {
            name: dict(sorted(Counter(s.notes[name] for s in valid if name in s.notes).items()))
            for name in _names(scores, "notes")
        },
        "reasons": dict(sorted(Counter(reason_kind(s.reason) for s in scores if s.reason).items())),
    }


def reason_kind(reason: str) -> str:
    """What reasons have in common: the part before the first colon or parenthesis."""
    return reason.split(":")[0].split(" (")[0]


def _names(scores: Sequence[RowScore], attribute: str) -> list[str]:
    return list(dict.fromkeys(name for score in scores for name in getattr(score, attribute)))


def _grouped(scores: Sequence[RowScore], group: str) -> dict[str, list[RowScore]]:
    members: dict[str, list[RowScore]] = {}
    for score in scores:
        if score.groups.get(group):
            members.setdefault(score.groups[group], []).append(score)
    return members


def measure(kind: MeasureKind, name: str, scores: Sequence[RowScore]) -> dict[str, float | int | str]:
    """Value and 95 % interval of one measure over rows: Wilson's for a share, rows resampled for the others.

    `correct` and `of` are what was divided: rows right and rows, the sum of values and rows, part and whole.
    A share has no `kind`, which is the default in results.
    """
    if kind == "ratio":
        return ratio([score.counts[name] for score in scores])
    values = [score.scores[name] for score in scores]
    return mean(values) if kind == "mean" else share(values)


def share(verdicts: Sequence[bool | float]) -> dict[str, float | int | str]:
    """Right rows of all rows, with Wilson's interval."""
    correct, of = sum(map(int, verdicts)), len(verdicts)
    low, high = wilson(correct, of)
    value = correct / of if of else 0.0
    return {"value": value, "low": low, "high": high, "correct": correct, "of": of}


def mean(values: Sequence[float]) -> dict[str, float | int | str]:
    """A mean over rows, its interval from resampled rows; 0 with an interval of 0 if there are none."""
    value, low, high = mean_interval(values)
    return {
        "value": value,
        "low": low,
        "high": high,
        "correct": float(sum(values)),
        "of": len(values),
        "kind": "mean",
    }


def ratio(pairs: Sequence[tuple[int, int]]) -> dict[str, float | int | str]:
    """A ratio of sums over rows, its interval from resampled rows: parts of one row are not independent."""
    part, whole = sum(p for p, _ in pairs), sum(w for _, w in pairs)
    generator = random.Random(0)
    drawn = []
    for _ in range(_DRAWS if whole else 0):
        sample = generator.choices(pairs, k=len(pairs))
        denominator = sum(w for _, w in sample)
        drawn.append(sum(p for p, _ in sample) / denominator if denominator else 0.0)
    drawn.sort()
    return {
        "value": part / whole if whole else 0.0,
        "low": quantile(drawn, 0.025) if drawn else 0.0,
        "high": quantile(drawn, 0.975) if drawn else 1.0,
        "correct": part,
        "of": whole,
        "kind": "ratio",
    }
