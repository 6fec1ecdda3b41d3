"""Which generated databases a gold query is judged on: the few that kill most of its mutants.

Mutants that the real database kills need no other. For the rest, candidates are made and the
smallest set found greedily; where mutants still survive, a longer hunt is made for those alone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

from jobs.score.sql import compare, engine
from jobs.score.sql.compare import Expected
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.gold import allowed, is_stable
from jobs.score.sql.mutate import Mutant
from jobs.score.sql.syntax import GoldPlan

#: Candidates made for every query, and for the mutants that survive these.
CANDIDATES = 20
HUNTED = 60
#: Databases kept at most; and where there is no real one, at least.
MOST_KEPT = 8
LEAST_KEPT = 2
#: Mutants run amok more often than gold queries do, and are worth less.
MUTANT_LIMITS = Limits(steps=3_000_000, cpu_s=1.0, rows=50_000, content_bytes=16 << 20)


@dataclass
class Choice:
    """The databases kept (numbers of candidates and their images) and what became of the mutants."""

    images: list[bytes] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)


@dataclass
class _Candidate:
    image: bytes
    killed: set[int]
    shows_rows: bool


def choose(
    plan: GoldPlan,
    mutants: Sequence[Mutant],
    real: sqlite3.Connection | None,
    candidates: Iterator[bytes],
    spared: Sequence[bool],
) -> Choice:
    """Run the mutants and keep databases. `spared[i]` says that mutant i is known to be no mistake at all."""
    first = next(candidates)
    candidates = chain((first,), candidates)
    running = _runnable(mutants, real, first)
    choice = Choice(made=Counter(mutants[index].kind for index in running))
    alive = set(running)
    if real is not None:
        alive -= _killed(real, plan, mutants, alive)
    pool: list[_Candidate] = []
    unstable: list[bytes] = []
    asked = set(alive)
    for number, image in enumerate(candidates):
        if number >= CANDIDATES and (not any(not spared[i] for i in alive) or number >= CANDIDATES + HUNTED):
            break
        if real is not None and not any(not spared[i] for i in alive):
            break
        candidate = _tried(image, plan, mutants, asked if number < CANDIDATES else alive)
        if candidate is None:
            unstable.append(image)
        elif number < CANDIDATES or candidate.killed:
            pool.append(candidate)
            alive -= candidate.killed
    choice.images = _cover(pool, asked - alive, LEAST_KEPT if real is None else 0)
    if not choice.images and real is None:
        choice.images = unstable[:LEAST_KEPT]
    covered = alive | _uncovered(pool, choice.images, asked - alive)
    choice.survivors = [mutants[index] for index in sorted(covered)]
    return choice


def _runnable(mutants: Sequence[Mutant], real: sqlite3.Connection | None, first: bytes) -> list[int]:
    """Mutants that are queries at all, on the real database or else the first candidate."""
    if real is not None:
        return [i for i, mutant in enumerate(mutants) if _compiles(real, mutant.sql)]
    with closing(engine.open_image(first)) as connection:
        return [i for i, mutant in enumerate(mutants) if _compiles(connection, mutant.sql)]


def _compiles(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        engine.run(connection, f"EXPLAIN {sql}", MUTANT_LIMITS)
    except QueryError:
        return False
    return True


def _tried(image: bytes, plan: GoldPlan, mutants: Sequence[Mutant], asked: set[int]) -> _Candidate | None:
    """What a candidate kills; None where the gold query's own result is a matter of chance on it."""
    with closing(engine.open_image(image)) as connection:
        try:
            expected = allowed(connection, plan, MUTANT_LIMITS)
            if not is_stable(image, plan, expected, MUTANT_LIMITS):
                return None
        except QueryError:
            return None
        return _Candidate(image, _killed(connection, plan, mutants, asked, expected), bool(expected.length))


def _killed(
    connection: sqlite3.Connection,
    plan: GoldPlan,
    mutants: Sequence[Mutant],
    asked: set[int],
    expected: Expected | None = None,
) -> set[int]:
    """The mutants that do not return what the gold returns here."""
    expected = expected or allowed(connection, plan, engine.Limits())
    killed = set()
    for index in asked:
        try:
            given = engine.run(connection, mutants[index].sql, MUTANT_LIMITS)
        except QueryError:
            # It runs too long or too large where the gold does not: not the same.
            killed.add(index)
            continue
        if not compare.same([expected], [given]):
            killed.add(index)
    return killed


def _cover(pool: Sequence[_Candidate], wanted: set[int], least: int) -> list[bytes]:
    """Greedy set cover; of equals the earliest candidate, then those that show rows at all."""
    kept: list[int] = []
    left = set(wanted)
    while left and len(kept) < MOST_KEPT:
        best = max(range(len(pool)), key=lambda i: (len(pool[i].killed & left), pool[i].shows_rows, -i))
        if not pool[best].killed & left:
            break
        kept.append(best)
        left -= pool[best].killed
    spare = sorted(
        (i for i in range(len(pool)) if i not in kept), key=lambda i: (not pool[i].shows_rows, -len(pool[i].killed), i)
    )
    kept += spare[: max(0, least - len(kept))]
    return [pool[i].image for i in kept]


def _uncovered(pool: Sequence[_Candidate], images: Sequence[bytes], wanted: set[int]) -> set[int]:
    """Mutants that only a database not kept would have killed."""
    kept = {id(image) for image in images}
    return wanted.difference(*(candidate.killed for candidate in pool if id(candidate.image) in kept))
