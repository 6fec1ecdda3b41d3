"""The mutant kill rate of a data set: how well its databases distinguish wrong queries from right ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.tasks.sql.execution.records import GoldEntry


@dataclass(frozen=True)
class Tally:
    """Mutants made, of those proved equivalent, of the others those that no database kills."""

    mutants: int
    equivalent: int
    missed: int

    @property
    def rate(self) -> float:
        """The share killed of the mutants not proved equivalent; 0 if there are none."""
        counted = self.mutants - self.equivalent
        return (counted - self.missed) / counted if counted else 0.0

    def to_json(self) -> dict[str, object]:
        return {
            "mutants": self.mutants,
            "equivalent": self.equivalent,
            "missed": self.missed,
            "rate": self.rate,
        }


@dataclass(frozen=True)
class KillRate:
    """Tallies of all mutants and per kind, how often each equivalence rule applied, and the mutants missed."""

    total: Tally
    kinds: Mapping[str, Tally]
    equivalent_rules: Mapping[str, int]
    survivors: Sequence[Mapping[str, str]]

    def to_json(self) -> dict[str, object]:
        return {
            **self.total.to_json(),
            "kinds": {kind: tally.to_json() for kind, tally in self.kinds.items()},
            "equivalent_rules": dict(self.equivalent_rules),
            "survivors": list(self.survivors),
        }


def kill_rate(golds: Sequence[GoldEntry]) -> KillRate:
    """The kill rate over a data set's gold entries; each query counts once per schema."""
    made: Counter[str] = Counter()
    equivalent: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    survivors = []
    for entry in {_identity(gold): gold for gold in golds if gold.reference is not None}.values():
        made.update(entry.mutants)
        for mutant in entry.survivors:
            if mutant.rule is None:
                missed[mutant.kind] += 1
                survivors.append(
                    {
                        "kind": mutant.kind,
                        "change": mutant.change,
                        "gold": entry.sql,
                        "mutant": mutant.sql,
                    }
                )
            else:
                equivalent[mutant.kind] += 1
                rules[f"{mutant.change.split(' to count(')[0]}: {mutant.rule}"] += 1
    return KillRate(
        Tally(made.total(), equivalent.total(), missed.total()),
        {kind: Tally(made[kind], equivalent[kind], missed[kind]) for kind in sorted(made)},
        dict(sorted(rules.items())),
        survivors,
    )


def _identity(entry: GoldEntry) -> object:
    """Equal for the same query on the same schema: one text can mean different queries on different schemas."""
    assert entry.reference is not None
    reference = entry.reference
    return entry.sql, reference.columns, reference.images, tuple(entry.mutants.items()), entry.survivors
