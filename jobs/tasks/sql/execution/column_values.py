"""Values of generated columns: the query's literals, boundary values around them, and ordinary ones that repeat."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.tasks.sql.execution.compare import Value
from jobs.tasks.sql.execution.query_constraints import Literal
from jobs.tasks.sql.execution.schema import ColumnKind

_WORDS = re.findall(
    r"\w+",
    "alder birch cedar dogwood elm fir ginkgo hazel ivy juniper kapok larch maple nutmeg oak pine quince rowan "
    "spruce teak umbra viburnum willow xylem yew zelkova",
)


@dataclass(frozen=True)
class ColumnValues:
    """The values that a column draws from.

    `special` are literals and boundary values, drawn with probability `special_share`; `hits` satisfy the
    query's condition on the column.
    """

    kind: ColumnKind
    special: tuple[Value, ...]
    hits: tuple[Value, ...]
    ordinary: tuple[Value, ...]
    special_share: float

    def draw(self, rng: random.Random) -> Value:
        if self.special and rng.random() < self.special_share:
            return rng.choice(self.special)
        return rng.choice(self.ordinary)

    def hit(self, rng: random.Random) -> Value:
        """A value that satisfies the query's condition, if it has one on the column."""
        return rng.choice(self.hits) if self.hits else self.draw(rng)

    def distinct(self, rng: random.Random, count: int) -> list[Value]:
        """`count` different values: some hits first, then special and ordinary ones, then new ones."""
        first = list(dict.fromkeys(self.hits))[: max(1, count // 2)]
        rest = [v for v in dict.fromkeys([*self.special, *self.ordinary]) if v not in first]
        known: list[Value] = [*first, *rng.sample(rest, len(rest))]
        number = 1
        while len(known) < count:
            value: Value = (
                f"{_WORDS[number % len(_WORDS)]} {number}" if self.kind in ("text", "time") else 100 + number
            )
            if value not in known:
                known.append(value)
            number += 1
        return rng.sample(known[:count], count)


def column_values(
    kind: ColumnKind,
    literals: Sequence[Literal],
    hits: Sequence[Literal],
    patterns: Sequence[str],
    rng: random.Random,
    distinct: int,
    special_share: float,
) -> ColumnValues:
    """Values for columns of `kind` that the query compares with `literals` and LIKE `patterns`."""
    wanted: list[Value] = [hit for hit in hits if not isinstance(hit, int) or -(2**63) <= hit < 2**63]
    special: list[Value] = []
    for literal in literals:
        special += boundary_values(literal)
    for pattern in patterns:
        special += like_matches(pattern, rng)
        wanted += like_matches(pattern, rng)[:2]
    numbers = [literal for literal in literals if not isinstance(literal, str)]
    return ColumnValues(
        kind, tuple(special), tuple(wanted), _ordinary(kind, numbers, rng, distinct), special_share
    )


def boundary_values(literal: Literal) -> list[Value]:
    """Boundary values of a literal: the literal itself, twice to be frequent, and values next to it."""
    if isinstance(literal, int):
        # SQLite's integers have 64 bits.
        return [
            v for v in (literal, literal, literal - 1, literal + 1, -literal) if -(2**63) <= v < 2**63
        ] or [literal % 1000]
    if isinstance(literal, float):
        return [literal, literal, literal - 0.5, literal + 0.5, round(literal)]
    found: list[Value] = [
        literal,
        literal,
        literal.upper(),
        literal.lower(),
        literal.title(),
        f"{literal} x",
        f"x {literal}",
    ]
    if re.fullmatch(r"-?\d+", literal) and len(literal) < 18:
        found += [str(int(literal) - 1), str(int(literal) + 1)]
    elif digits := list(re.finditer(r"\d", literal)):
        at = digits[-1].start()
        for step in (1, 9):
            found.append(literal[:at] + str((int(literal[at]) + step) % 10) + literal[at + 1 :])
    if len(literal) > 1:
        found.append(literal[:-1])
    return found


def like_matches(pattern: str, rng: random.Random) -> list[Value]:
    """Texts that match a LIKE pattern, and near misses of each kind."""

    def filled(some: str) -> str:
        return "".join(some if c == "%" else rng.choice("qz") if c == "_" else c for c in pattern)

    exact, longer = filled(""), filled("ab")
    core = pattern.replace("%", "").replace("_", "")
    return [
        exact,
        longer,
        longer.upper(),
        f"x{exact}",
        f"{exact}x",
        f"x{exact}x",
        core,
        core[1:],
        core[:-1],
        core.swapcase(),
    ]


def _ordinary(
    kind: ColumnKind, numbers: Sequence[int | float], rng: random.Random, distinct: int
) -> tuple[Value, ...]:
    if kind == "boolean":
        return (0, 1)
    if kind == "time":
        return tuple(
            f"20{rng.randrange(10, 22)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
            for _ in range(distinct)
        )
    if kind == "text":
        words = [rng.choice(_WORDS) for _ in range(distinct)]
        return tuple(word.title() if rng.random() < 0.5 else word for word in words)
    low = min((int(n) for n in numbers if abs(n) < 1e15), default=0)
    high = max((int(n) for n in numbers if abs(n) < 1e15), default=20)
    spread = max(10, high - low)
    whole = [rng.randint(low - spread // 2, high + spread // 2) for _ in range(distinct)]
    if kind == "real":
        return tuple(number + rng.choice((0.0, 0.25, 0.5)) for number in whole)
    return tuple(whole)
