"""Which generated databases a gold query is judged on: the few that kill most of its mutants.

Mutants that the real database kills need no other. For the rest, candidates are made and the
smallest set found greedily; where mutants still survive, a longer hunt is made for those alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import apsw

from jobs.score.sql import compare, engine
from jobs.score.sql.compare import Expected
from jobs.score.sql.engine import Limits, QueryError
from jobs.score.sql.gold import allowed, is_stable
from jobs.score.sql.mutate import Mutant
from jobs.score.sql.syntax import GoldPlan

#: Candidates made for a query; beyond them, the hunt for survivors ends when this many in a row kill nothing.
CANDIDATES = 20
PATIENCE = 40
#: Where a real database has done most of the work.
PATIENCE_BESIDE_REAL = 15
#: Databases kept at most; and where there is no real one, at least.
MOST_KEPT = 8
LEAST_KEPT = 2
#: Mutants run amok more often than gold queries do, and are worth less.
MUTANT_LIMITS = Limits(steps=3_000_000, cpu_s=3.0, rows=50_000, content_bytes=16 << 20)


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
    real: apsw.Connection | None,
    candidates: Iterator[bytes],
    spared: Sequence[bool],
) -> Choice:
    """Run the mutants and keep databases. `spared[i]` says that mutant i is known to be no mistake at all."""
    hunt = _Hunt(plan, mutants)
    if real is not None:
        hunt.strike(real, allowed(real, plan, Limits()))
    asked = set(hunt.alive)
    patience, least = (PATIENCE, CANDIDATES) if real is None else (PATIENCE_BESIDE_REAL, PATIENCE_BESIDE_REAL)
    fruitless = 0
    for number, image in enumerate(candidates):
        wanted = {index for index in hunt.alive if not spared[index]}
        if not wanted and (real is not None or number >= CANDIDATES):
            break
        if number >= least and fruitless >= patience:
            break
        before = len(wanted)
        hunt.consider(image, asked if number < CANDIDATES else wanted)
        fruitless = 0 if len(wanted & hunt.alive) < before else fruitless + 1
    wanted = asked - hunt.alive - hunt.broken
    images = _cover(hunt.pool, wanted, LEAST_KEPT if real is None else 0)
    if not images and real is None:
        images = hunt.unstable[:LEAST_KEPT]
    survivors = (hunt.alive | _uncovered(hunt.pool, images, wanted)) - hunt.broken
    return Choice(
        images,
        Counter(mutant.kind for index, mutant in enumerate(mutants) if index not in hunt.broken),
        [mutants[index] for index in sorted(survivors)],
    )


class _Hunt:
    """Candidates and what they kill. `broken` are mutants that are no queries: they measure nothing."""

    def __init__(self, plan: GoldPlan, mutants: Sequence[Mutant]) -> None:
        self._plan, self._mutants = plan, mutants
        self.alive = set(range(len(mutants)))
        self.broken: set[int] = set()
        self.pool: list[_Candidate] = []
        self.unstable: list[bytes] = []

    def consider(self, image: bytes, asked: set[int]) -> None:
        """Try a candidate; one on which the gold query's own result is a matter of chance is put aside."""
        with closing(engine.open_image(image)) as connection:
            try:
                expected = allowed(connection, self._plan, MUTANT_LIMITS)
                if not is_stable(image, self._plan, expected, MUTANT_LIMITS):
                    self.unstable.append(image)
                    return
            except QueryError:
                return
            killed = self.strike(connection, expected, asked)
        self.pool.append(_Candidate(image, killed, bool(expected.length)))

    def strike(
        self, connection: apsw.Connection, expected: Expected, asked: set[int] | None = None
    ) -> set[int]:
        """Run mutants on a database and return those that do not return what the gold returns there."""
        killed: set[int] = set()
        for index in sorted((self.alive if asked is None else asked) - self.broken):
            try:
                given = engine.run(connection, self._mutants[index].sql, MUTANT_LIMITS)
            except QueryError as error:
                # Too slow or too large where the gold is not: not the same. Anything else: no query.
                (killed if error.kind in ("too slow", "too large") else self.broken).add(index)
                continue
            if not compare.same([expected], [given]):
                killed.add(index)
        self.alive -= killed
        self.alive -= self.broken
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
        (i for i in range(len(pool)) if i not in kept),
        key=lambda i: (not pool[i].shows_rows, -len(pool[i].killed), i),
    )
    kept += spare[: max(0, least - len(kept))]
    return [pool[i].image for i in kept]


def _uncovered(pool: Sequence[_Candidate], images: Sequence[bytes], wanted: set[int]) -> set[int]:
    """Mutants that only a database not kept would have killed."""
    kept = {id(image) for image in images}
    return wanted.difference(*(candidate.killed for candidate in pool if id(candidate.image) in kept))
