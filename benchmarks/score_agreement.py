"""Agreement of the strict and the official verdict: `python benchmarks/score_agreement.py --data DIR [--rows N]`.

N gold queries, spread over Spider's training part, are answered by their mutants and by equivalent rewritings.
The table counts the four combinations of verdicts; below it, disagreements are counted by rule.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from sqlglot import exp

from jobs.data.sources import read_part
from jobs.measures.cache import Cache, default_path
from jobs.tasks.rows import Row
from jobs.tasks.sql.execution import syntax
from jobs.tasks.sql.execution.mutants import generate_mutants
from jobs.tasks.sql.execution.schema import SchemaError, from_text
from jobs.tasks.sql.judging import default_workers, score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="a directory with Spider's layout")
    parser.add_argument("--rows", type=int, default=500, help="gold queries to alter, spread over the data")
    options = parser.parse_args()
    rows = read_part("sql", "spider", options.data, "train")
    rows = rows[:: max(1, len(rows) // options.rows)][: options.rows]
    altered = [(row, kind, text) for row in rows for kind, text in _alterations(row)]
    asked = [replace(row, id=f"{row.id}/{number}") for number, (row, _, _) in enumerate(altered)]
    cache = Cache(default_path())
    found = score(
        asked, [text for _, _, text in altered], options.data, workers=default_workers(), cache=cache
    ).rows
    cache.close()
    table: dict[str, Counter[tuple[bool, bool]]] = defaultdict(Counter)
    rules: Counter[str] = Counter()
    for (_, kind, _), one in zip(altered, found, strict=True):
        if one.valid_gold:
            table[kind][one.scores["strict"], one.scores["official"]] += 1
            rules.update(one.notes.values())
    print(
        f"{'alteration':16} {'both right':>10} {'both wrong':>10} {'strict alone':>12} {'official alone':>14}"
    )
    for kind in [*table, "all"]:
        counts = sum(table.values(), Counter()) if kind == "all" else table[kind]
        cells = [counts[True, True], counts[False, False], counts[True, False], counts[False, True]]
        print(f"{kind:16} {cells[0]:10} {cells[1]:10} {cells[2]:12} {cells[3]:14}")
    for rule, count in rules.most_common():
        print(f"{count:6}  {rule}")


def _alterations(row: Row) -> list[tuple[str, str]]:
    """(kind, query) for the mutants and the equivalent rewritings of a gold query."""
    tree = syntax.parse(row.gold)
    try:
        schema = from_text(row.fields["schema"])
    except SchemaError:
        return []
    if tree is None:
        return []
    return [
        *((mutant.kind, mutant.sql) for mutant in generate_mutants(tree, schema)),
        *_rewritings(tree, row.gold),
    ]


def _rewritings(tree: exp.Expression, gold: str) -> list[tuple[str, str]]:
    """Rewritings that answer the same question: other output order, other row order, SUM / COUNT for AVG."""
    found = [
        ("spelling", tree.sql(dialect=syntax.DIALECT)),
        ("ORDER  BY", gold.replace("ORDER BY", "ORDER  BY")),
    ]
    root = tree.copy()
    if isinstance(root, exp.Select):
        if not root.args.get("order") and not root.args.get("limit"):
            found.append(("row order", f"SELECT * FROM ({gold.strip().rstrip(';')}) ORDER BY 1 DESC"))
        if len(root.expressions) > 1:
            root.set("expressions", root.expressions[::-1])
            found.append(("output order", root.sql(dialect=syntax.DIALECT)))
        average = tree.copy().find(exp.Avg)
        if average is not None:
            tree = average.root()
            average.replace(
                exp.Div(
                    this=exp.Sum(this=average.this.copy()),
                    expression=exp.Count(this=average.this.copy()),
                    typed=False,
                )
            )
            found.append(("average by hand", tree.sql(dialect=syntax.DIALECT).replace("SUM(", "1.0 * SUM(")))
        order = root.args.get("order")
        if order is not None and not root.args.get("distinct"):
            tied = syntax.parse(gold)
            if tied is not None:
                tied.args["order"].append(
                    "expressions", exp.Ordered(this=exp.Literal.number(1), desc=True, nulls_first=False)
                )
                found.append(("ties turned", tied.sql(dialect=syntax.DIALECT)))
    return found


if __name__ == "__main__":
    main()
