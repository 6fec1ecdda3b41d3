"""What scoring a row gives, and the summary of many: the same shape for every task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.measures.statistics import quantile, wilson

_DRAWS = 2_000


@dataclass(frozen=True)
class RowScore:
    """One answer's verdict.

    `scores` are yes or no and averaged over rows with valid gold; `counts` are (part, whole) and
    summed over rows before they are divided (attribute precision); `flags` are counted, and so are
    the different values of `notes`.
    """

    id: str
    answer: str
    gold: str
    valid_gold: bool
    scores: Mapping[str, bool]
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


def summarise(task: str, primary: str, scores: Sequence[RowScore]) -> dict[str, Any]:
    """The summary that `score` commits: measures with 95 % intervals over rows with valid gold, and breakdowns."""
    valid = [score for score in scores if score.valid_gold]
    measures = {name: _proportion([s.scores[name] for s in valid]) for name in _names(scores, "scores")}
    measures |= {name: _ratio([s.counts[name] for s in valid]) for name in _names(scores, "counts")}
    return {
        "task": task,
        "rows": len(scores),
        "valid_gold": len(valid),
        "primary": primary,
        "measures": measures,
        "breakdowns": {
            group: {
                value: {
                    name: _proportion([s.scores[name] for s in members]) for name in _names(scores, "scores")
                }
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


def _proportion(verdicts: Sequence[bool]) -> dict[str, float | int]:
    correct, of = sum(verdicts), len(verdicts)
    low, high = wilson(correct, of)
    return {"value": correct / of if of else 0.0, "low": low, "high": high, "correct": correct, "of": of}


def _ratio(pairs: Sequence[tuple[int, int]]) -> dict[str, float | int]:
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
    }
