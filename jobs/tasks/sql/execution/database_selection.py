"""Which generated databases a gold query is judged on: the few that kill most of its mutants.

Mutants that the real database kills need no other. For the rest, candidates are made and the
smallest set found greedily; where mutants still survive, a longer runs is made for those alone.

Mutants are not all mistakes there are. Where no real database stands beside the generated ones,
more are kept than mutants need, among them those with the most NULLs, ties and other spellings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, fields
from itertools import count

import apsw

from jobs.tasks.sql.execution import compare, connections
from jobs.tasks.sql.execution.compare import Expected
from jobs.tasks.sql.execution.database_traits import Traits, database_traits
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.gold_results import allowed_results, alternative_results, is_deterministic
from jobs.tasks.sql.execution.mutants import Mutant
from jobs.tasks.sql.execution.query_runner import QueryError, QueryLimits, run_query

#: Candidates made for a query; beyond them, the runs for survivors ends when this many in a row kill nothing.
CANDIDATES = 20
PATIENCE = 40
#: Where a real database has done most of the work.
PATIENCE_BESIDE_REAL = 15
#: Databases kept for their mutants at most; and where there is no real one, in all at least.
MAX_KEPT = 8
MIN_KEPT = 6
#: Of databases on which the gold's result is chance, where on no other it has rows: the fewer, the less harm.
UNSTABLE_KEPT = 2
#: Mutants run amok more often than gold queries do, and are worth less.
MUTANT_LIMITS = QueryLimits(steps=3_000_000, cpu_s=3.0, rows=50_000, content_bytes=16 << 20)


@dataclass
class Selection:
    """The images of the databases kept and what became of the mutants."""

    images: list[bytes] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)


@dataclass
class _Candidate:
    number: int
    image: bytes
    killed: set[int]
    expected: Expected

    @property
    def shows_rows(self) -> bool:
        return bool(self.expected.length)


def select_databases(
    plan: GoldPlan,
    mutants: Sequence[Mutant],
    real: apsw.Connection | None,
    build: Callable[[int, bool], bytes],
    spared: Sequence[bool],
    tables: Set[str],
) -> Selection:
    """Run the mutants and keep databases.

    `build(n, fill_all)` makes candidate n, with `fill_all` also with rows in tables that the gold does
    not read. `spared[i]` says that mutant i is known to be no mistake at all; `tables` are those that
    the gold reads, in lower case.
    """
    runs = _MutantRuns(plan, mutants)
    if real is not None:
        # A mutant that returns what the gold may return by chance is not told apart there.
        runs.strike(
            real,
            [allowed_results(real, plan, QueryLimits()), *alternative_results(real, plan, QueryLimits())],
        )
    asked = set(runs.alive)
    patience, least = (PATIENCE, CANDIDATES) if real is None else (PATIENCE_BESIDE_REAL, PATIENCE_BESIDE_REAL)
    fruitless = 0
    for number in count():
        wanted = {index for index in runs.alive if not spared[index]}
        if not wanted and (real is not None or number >= CANDIDATES):
            break
        if number >= least and fruitless >= patience:
            break
        before = len(wanted)
        runs.consider(number, build(number, False), asked if number < CANDIDATES else wanted)
        fruitless = 0 if len(wanted & runs.alive) < before else fruitless + 1
    wanted = asked - runs.alive - runs.broken
    kept = _cover(runs.pool, wanted)
    survivors = (runs.alive | _uncovered(kept, wanted)) - runs.broken
    images = [candidate.image for candidate in kept]
    if real is None:
        # An answer may read any table. Filling them all takes long, and mutants do not read them.
        chosen = _with_spare(runs.pool, kept, tables)
        numbers = [candidate.number for candidate in chosen]
        if not any(candidate.shows_rows for candidate in chosen):
            # An answer that returns nothing must not be right for want of a database that is not chance.
            numbers += runs.unstable[:UNSTABLE_KEPT]
        images = [build(number, True) for number in numbers]
    return Selection(
        images,
        Counter(mutant.kind for index, mutant in enumerate(mutants) if index not in runs.broken),
        [mutants[index] for index in sorted(survivors)],
    )


class _MutantRuns:
    """Candidates and what they kill. `broken` are mutants that are no queries: they measure nothing."""

    def __init__(self, plan: GoldPlan, mutants: Sequence[Mutant]) -> None:
        self._plan, self._mutants = plan, mutants
        self.alive = set(range(len(mutants)))
        self.broken: set[int] = set()
        self.pool: list[_Candidate] = []
        self.unstable: list[int] = []

    def consider(self, number: int, image: bytes, asked: set[int]) -> None:
        """Try a candidate; one on which the gold query's own result is a matter of chance is put aside."""
        with closing(connections.open_image(image)) as connection:
            try:
                expected = allowed_results(connection, self._plan, MUTANT_LIMITS)
                if not is_deterministic(image, self._plan, expected, MUTANT_LIMITS):
                    self.unstable.append(number)
                    return
            except QueryError:
                return
            killed = self.strike(connection, [expected], asked)
        self.pool.append(_Candidate(number, image, killed, expected))

    def strike(
        self, connection: apsw.Connection, choices: Sequence[Expected], asked: set[int] | None = None
    ) -> set[int]:
        """Run mutants on a database and return those that return none of what the gold may return there."""
        killed: set[int] = set()
        for index in sorted((self.alive if asked is None else asked) - self.broken):
            try:
                given = run_query(connection, self._mutants[index].sql, MUTANT_LIMITS)
            except QueryError as error:
                # Too slow or too large where the gold is not: not the same. Anything else: no query.
                (killed if error.kind in ("too slow", "too large") else self.broken).add(index)
                continue
            if not any(compare.same([expected], [given]) for expected in choices):
                killed.add(index)
        self.alive -= killed
        self.alive -= self.broken
        return killed


def _cover(pool: Sequence[_Candidate], wanted: set[int]) -> list[_Candidate]:
    """Greedy set cover; of equals those that show rows at all, then the earliest."""
    kept: list[_Candidate] = []
    left = set(wanted)
    while left and len(kept) < MAX_KEPT:
        best = max(pool, key=lambda one: (len(one.killed & left), one.shows_rows, -one.number))
        if not best.killed & left:
            break
        kept.append(best)
        left -= best.killed
    return kept


def _with_spare(pool: Sequence[_Candidate], kept: Sequence[_Candidate], tables: Set[str]) -> list[_Candidate]:
    """`kept`, the database with the most of each trait, and then those that kill most, up to MIN_KEPT."""
    found = {candidate.number: candidate for candidate in kept}
    traits = {one.number: database_traits(one.image, tables, one.expected) for one in pool}
    for trait in fields(Traits) if pool else ():
        # Where the gold shows no row, an answer's further conditions take none away: such databases come last.
        amounts = {one.number: (one.shows_rows, getattr(traits[one.number], trait.name)) for one in pool}
        best = max(pool, key=lambda one: amounts[one.number])
        if getattr(traits[best.number], trait.name):
            found[best.number] = best
    for one in sorted(pool, key=lambda one: (not one.shows_rows, -len(one.killed), one.number)):
        if len(found) >= MIN_KEPT:
            break
        found[one.number] = one
    return list(found.values())


def _uncovered(kept: Sequence[_Candidate], wanted: set[int]) -> set[int]:
    """Mutants that only a database not kept would have killed."""
    return wanted.difference(*(candidate.killed for candidate in kept))
