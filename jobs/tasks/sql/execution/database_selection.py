"""Select the generated databases on which answers to a gold query are judged: few that kill most mutants.

Mutants that the real database kills need no other. For the rest, candidates are generated and a small set is
chosen by greedy set cover; more candidates are generated for mutants that still survive.

Models make mistakes that are no mutants. Without a real database more databases are kept than mutants need,
among them those with the most NULLs, ties and spellings.
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

#: Candidates generated for a query without a real database.
CANDIDATES = 20
#: The search ends after this many candidates in a row that kill no surviving mutant.
MAX_FRUITLESS = 40
MAX_FRUITLESS_WITH_REAL = 15
#: Databases kept for the mutants they kill, at most; and in all without a real database, at least.
MAX_KEPT = 8
MIN_KEPT = 6
#: Databases kept on which the gold's result is nondeterministic, if it returns rows on no other.
NONDETERMINISTIC_KEPT = 2
#: Mutants reach their limits more often than gold queries, and matter less.
MUTANT_LIMITS = QueryLimits(steps=3_000_000, cpu_s=3.0, rows=50_000, content_bytes=16 << 20)


@dataclass
class Selection:
    """The images of the databases kept, the number of mutants by kind, and the mutants that none kills."""

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
    equivalent: Sequence[bool],
    tables: Set[str],
) -> Selection:
    """Run the mutants on candidates and select databases.

    `build` makes candidates (see candidate_databases.py). `equivalent[i]` says that mutant i is proved
    equivalent: no candidates are generated for it. `tables` are those that the gold reads, in lower case.
    """
    runs = _MutantRuns(plan, mutants)
    if real is not None:
        # A nondeterministic gold allows several results: a mutant that returns any of them survives.
        runs.kill(
            real,
            [allowed_results(real, plan, QueryLimits()), *alternative_results(real, plan, QueryLimits())],
        )
    targets = set(runs.alive)
    max_fruitless, least = (
        (MAX_FRUITLESS, CANDIDATES) if real is None else (MAX_FRUITLESS_WITH_REAL, MAX_FRUITLESS_WITH_REAL)
    )
    fruitless = 0
    for number in count():
        wanted = {index for index in runs.alive if not equivalent[index]}
        if not wanted and (real is not None or number >= CANDIDATES):
            break
        if number >= least and fruitless >= max_fruitless:
            break
        before = len(wanted)
        runs.try_candidate(number, build(number, False), targets if number < CANDIDATES else wanted)
        fruitless = 0 if len(wanted & runs.alive) < before else fruitless + 1
    wanted = targets - runs.alive - runs.broken
    kept = _cover(runs.candidates, wanted)
    survivors = (runs.alive | _uncovered(kept, wanted)) - runs.broken
    images = [candidate.image for candidate in kept]
    if real is None:
        # Answers may read any table. Mutants read the gold's only, so the others are filled only now.
        chosen = _with_diverse(runs.candidates, kept, tables)
        numbers = [candidate.number for candidate in chosen]
        if not any(candidate.shows_rows for candidate in chosen):
            # Otherwise an answer that returns nothing would be right.
            numbers += runs.nondeterministic[:NONDETERMINISTIC_KEPT]
        images = [build(number, True) for number in numbers]
    return Selection(
        images,
        Counter(mutant.kind for index, mutant in enumerate(mutants) if index not in runs.broken),
        [mutants[index] for index in sorted(survivors)],
    )


class _MutantRuns:
    """Runs mutants on candidates. `alive` are those not killed yet, `broken` those that do not run at all."""

    def __init__(self, plan: GoldPlan, mutants: Sequence[Mutant]) -> None:
        self._plan, self._mutants = plan, mutants
        self.alive = set(range(len(mutants)))
        self.broken: set[int] = set()
        self.candidates: list[_Candidate] = []
        self.nondeterministic: list[int] = []

    def try_candidate(self, number: int, image: bytes, targets: set[int]) -> None:
        """Run mutants on a candidate, unless the gold query's result on it is nondeterministic."""
        with closing(connections.open_image(image)) as connection:
            try:
                expected = allowed_results(connection, self._plan, MUTANT_LIMITS)
                if not is_deterministic(image, self._plan, expected, MUTANT_LIMITS):
                    self.nondeterministic.append(number)
                    return
            except QueryError:
                return
            killed = self.kill(connection, [expected], targets)
        self.candidates.append(_Candidate(number, image, killed, expected))

    def kill(
        self, connection: apsw.Connection, choices: Sequence[Expected], targets: set[int] | None = None
    ) -> set[int]:
        """Run mutants (default: those alive) on a database and return those it kills: that return no allowed result."""
        killed: set[int] = set()
        for index in sorted((self.alive if targets is None else targets) - self.broken):
            try:
                given = run_query(connection, self._mutants[index].sql, MUTANT_LIMITS)
            except QueryError as error:
                # The gold stays within the limits, so a mutant that exceeds them is killed; others do not run.
                (killed if error.kind in ("too slow", "too large") else self.broken).add(index)
                continue
            if not any(compare.same([expected], [given]) for expected in choices):
                killed.add(index)
        self.alive -= killed
        self.alive -= self.broken
        return killed


def _cover(candidates: Sequence[_Candidate], wanted: set[int]) -> list[_Candidate]:
    """Greedy set cover of the killed mutants; ties go to candidates on which the gold returns rows, then the first."""
    kept: list[_Candidate] = []
    left = set(wanted)
    while left and len(kept) < MAX_KEPT:
        best = max(candidates, key=lambda one: (len(one.killed & left), one.shows_rows, -one.number))
        if not best.killed & left:
            break
        kept.append(best)
        left -= best.killed
    return kept


def _with_diverse(
    pool: Sequence[_Candidate], kept: Sequence[_Candidate], tables: Set[str]
) -> list[_Candidate]:
    """`kept`, the candidate with the most of each trait, and those that kill most, up to MIN_KEPT."""
    found = {candidate.number: candidate for candidate in kept}
    traits = {one.number: database_traits(one.image, tables, one.expected) for one in pool}
    for trait in fields(Traits) if pool else ():
        # If the gold returns no row, extra conditions of an answer remove none: such candidates come last.
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
    """Mutants that none of the kept databases kills."""
    return wanted.difference(*(candidate.killed for candidate in kept))
