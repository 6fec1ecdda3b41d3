"""How well the databases of a data set tell wrong queries from right ones, in numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any


def kill_rate(golds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mutants made, equivalent, missed and killed, over a data set's gold entries (each distinct query once a schema).

    `rate` is the share killed of those that are not equivalent by a known rule; `kinds` says the
    same per class, `equivalent_rules` which rules applied, `survivors` lists the mutants that no
    database at hand tells from the gold.
    """
    made: Counter[str] = Counter()
    equivalent: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    listed = []
    for entry in {_key(gold): gold for gold in golds if gold["valid"]}.values():
        made.update(entry["mutants"])
        for kind, change, sql, rule in entry["survivors"]:
            if rule is None:
                missed[kind] += 1
                listed.append({"kind": kind, "change": change, "gold": entry["sql"], "mutant": sql})
            else:
                equivalent[kind] += 1
                rules[f"{change.split(' to count(')[0]}: {rule}"] += 1
    return {
        **_rates(made.total(), equivalent.total(), missed.total()),
        "kinds": {kind: _rates(made[kind], equivalent[kind], missed[kind]) for kind in sorted(made)},
        "equivalent_rules": dict(sorted(rules.items())),
        "survivors": listed,
    }


def _key(entry: dict[str, Any]) -> str:
    """The query and its schema, told by all that an entry has of it: one text can stand for different queries."""
    return json.dumps([entry[name] for name in ("sql", "columns", "images", "mutants", "survivors")])


def _rates(made: int, equivalent: int, missed: int) -> dict[str, float | int]:
    counted = made - equivalent
    return {
        "mutants": made,
        "equivalent": equivalent,
        "missed": missed,
        "rate": (counted - missed) / counted if counted else 0.0,
    }
