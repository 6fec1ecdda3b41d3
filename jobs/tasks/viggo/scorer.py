"""Compares meaning representations: exactly, canonically, and attribute by attribute.

`function(attribute[value, value], attribute[value])`. Values may contain parentheses ("M (for Mature)")
but no brackets. Canonical match ignores the order of attributes, the order of values inside an attribute,
and spacing. Case, spelling and repeated values count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.measures.row_score import RowScore
from jobs.tasks.contract import ScoreContext, Scored
from jobs.tasks.rows import Row

from .prompt import ATTRIBUTES, FUNCTIONS

#: Longer answers are not parsed; no meaning representation is nearly as long.
_MAX_CHARACTERS = 10_000
_CALL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\((.*)\)\s*\Z", re.DOTALL)
_ATTRIBUTE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\[([^\[\]]*)\]\s*", re.DOTALL)
_SPACE = re.compile(r"\s+")

#: One attribute with its values in a fixed order.
Slot = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Meaning:
    """A parsed representation; `slots` in the order given, values sorted."""

    function: str
    slots: tuple[Slot, ...]

    @property
    def canonical(self) -> tuple[str, tuple[Slot, ...]]:
        return self.function, tuple(sorted(self.slots))

    def unknown_names(self) -> list[str]:
        """Names outside ViGGO's closed lists, in the order in which they occur."""
        function = [] if self.function in FUNCTIONS else [self.function]
        return function + [name for name, _ in self.slots if name not in ATTRIBUTES]


def parse(text: str) -> Meaning | None:
    """The representation that the whole of `text` is; None if it is none."""
    call = _CALL.match(text) if len(text) <= _MAX_CHARACTERS else None
    if call is None:
        return None
    slots: list[Slot] = []
    rest = call[2]
    position = 0
    while position < len(rest) and not rest[position:].isspace():
        match = _ATTRIBUTE.match(rest, position)
        if match is None:
            return None
        values = sorted(_SPACE.sub(" ", value).strip() for value in match[2].split(","))
        slots.append((match[1], tuple(values)))
        position = match.end()
        if position < len(rest):
            if rest[position] != ",":
                return None
            position += 1
            if not rest[position:].strip():
                return None
    return Meaning(call[1], tuple(slots))


def write(meaning: Meaning) -> str:
    """The text of a representation; `parse(write(m)) == m`."""
    slots = ", ".join(f"{name}[{', '.join(values)}]" for name, values in meaning.slots)
    return f"{meaning.function}({slots})"


def score(rows: Sequence[Row], answers: Sequence[str], _context: ScoreContext | None = None) -> Scored:
    """A score per row, in order."""
    return Scored([_score_row(row, answer) for row, answer in zip(rows, answers, strict=True)])


def _score_row(row: Row, answer: str) -> RowScore:
    answer = answer.strip()
    gold, given = parse(row.gold), parse(answer)
    if gold is None:
        return RowScore(
            row.id,
            answer,
            row.gold,
            False,
            _scores(answer == row.gold, None, None),
            "the gold does not parse",
        )
    matched = Counter(gold.slots) & Counter(given.slots if given else ())
    same = sum(matched.values())
    of_given = len(given.slots) if given else 0
    scores = _scores(answer == row.gold.strip(), gold, given)
    return RowScore(
        row.id,
        answer,
        row.gold,
        True,
        scores,
        None if scores["canonical"] else differences(gold, given),
        {"function": gold.function},
        counts={
            "attribute_precision": (same, of_given),
            "attribute_recall": (same, len(gold.slots)),
            "attribute_f1": (2 * same, of_given + len(gold.slots)),
        },
    )


def _scores(exact: bool, gold: Meaning | None, given: Meaning | None) -> dict[str, bool]:
    return {
        "exact": exact,
        "strict": exact,
        "canonical": gold is not None and given is not None and gold.canonical == given.canonical,
        "function": gold is not None and given is not None and gold.function == given.function,
        "parses": given is not None,
        "unknown_name": given is not None and bool(given.unknown_names()),
    }


def differences(gold: Meaning, given: Meaning | None) -> str:
    """The differences of an answer from the gold, by attribute: expected and given."""
    if given is None:
        return "does not parse"
    problems = []
    if unknown := given.unknown_names():
        problems.append(f"unknown name: {', '.join(unknown)}")
    if gold.function != given.function:
        problems.append(f"wrong function: {given.function} instead of {gold.function}")
    missing = Counter(gold.slots) - Counter(given.slots)
    extra = Counter(given.slots) - Counter(gold.slots)
    for name in dict.fromkeys(name for name, _ in (*gold.slots, *given.slots)):
        wanted = [
            ", ".join(values) for (slot, values), n in missing.items() for _ in range(n) if slot == name
        ]
        found = [", ".join(values) for (slot, values), n in extra.items() for _ in range(n) if slot == name]
        if wanted and found:
            problems.append(f"wrong value: {name}[{'; '.join(found)}] instead of [{'; '.join(wanted)}]")
        elif wanted:
            problems.append(f"missing attribute: {name}[{'; '.join(wanted)}]")
        elif found:
            problems.append(f"extra attribute: {name}[{'; '.join(found)}]")
    return "; ".join(problems)
