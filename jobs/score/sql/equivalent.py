"""Mutants that are no mistakes: why a changed query means the same, where the text and the schema show it.

Each rule is a sufficient condition. Two rest on what generated data assumes of all data:
columns named as identifiers are never NULL, and a table's own identifier does not repeat.
"""

from __future__ import annotations

from sqlglot import exp

from jobs.score.sql.facts import ColumnKey, resolve
from jobs.score.sql.generate import key_like, names_its_table
from jobs.score.sql.mutate import Mutant
from jobs.score.sql.schema import Schema
from jobs.score.sql.syntax import DIALECT, parse, unwrapped

_REJECTS_NULL = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.Between, exp.In)


def rule(mutant: Mutant, tree: exp.Expression, schema: Schema) -> str | None:
    """The rule by which the mutant means what the query means, or None where none is known."""
    root = unwrapped(tree)
    if mutant.change == "add DISTINCT" and isinstance(root, exp.Select):
        return _no_duplicates(root, schema)
    if mutant.change == "drop DISTINCT":
        return _duplicates_do_not_matter(root, schema)
    if mutant.change == "UNION to UNION ALL":
        return "inside IN, duplicates do not matter" if not isinstance(root, exp.Union) else None
    if mutant.change in ("count DISTINCT", "count all instead of DISTINCT"):
        return _counts_a_key(root, schema)
    if mutant.change.startswith("count(*) to count("):
        return _never_null(mutant, root, schema)
    if mutant.change == "inner join to left join":
        return _left_rows_vanish(mutant, schema)
    if mutant.kind in ("order", "limit") and isinstance(root, exp.Select) and _one_row(root):
        return "the result has one row"
    return None


def _no_duplicates(select: exp.Select, schema: Schema) -> str | None:
    if _one_row(select):
        return "the result has one row"
    outputs = {projection.unalias().sql(dialect=DIALECT).lower() for projection in select.expressions}
    group = select.args.get("group")
    if group is not None:
        names = {text.rsplit(".", 1)[-1] for text in outputs}
        keys = [expression.sql(dialect=DIALECT).lower() for expression in group.expressions]
        if all(key in outputs or key.rsplit(".", 1)[-1] in names for key in keys):
            return "every group key is shown"
        return "a shown identifier belongs to one group" if _shows_identifier(select, schema) else None
    if select.args.get("joins"):
        return None
    return "an identifier is shown" if _shows_identifier(select, schema) else None


def _shows_identifier(select: exp.Select, schema: Schema) -> bool:
    starred = any(projection.is_star for projection in select.expressions)
    if starred:
        clause = select.args.get("from_")
        table = schema.table(clause.this.name) if clause is not None else None
        return table is not None and any(c.key or names_its_table(table, c) for c in table.columns)
    shown = [p.unalias() for p in select.expressions]
    return any(isinstance(p, exp.Column) and _is_identifier(p, schema) for p in shown)


def _is_identifier(column: exp.Column, schema: Schema) -> bool:
    for table_name, name in resolve(column, schema)[:1]:
        table = schema.table(table_name)
        found = table.column(name) if table is not None else None
        if table is not None and found is not None:
            return found.key or names_its_table(table, found)
    return False


def _one_row(select: exp.Select) -> bool:
    """Whether a SELECT can return no more than one row."""
    limit = select.args.get("limit")
    if limit is not None and limit.expression.name == "1":
        return True
    aggregated = all(any(True for _ in p.find_all(exp.AggFunc)) for p in select.expressions)
    return aggregated and not select.args.get("group")


def _duplicates_do_not_matter(root: exp.Expression, schema: Schema) -> str | None:
    selects = [select for select in root.find_all(exp.Select) if select.args.get("distinct")]
    if len(selects) != 1:
        return None
    (select,) = selects
    if select is root:
        return _no_duplicates(select, schema)
    if (
        isinstance(select.parent, exp.Union | exp.Intersect | exp.Except)
        and select.parent.args.get("distinct") is not False
    ):
        return "the set operation removes duplicates"
    if isinstance(select.find_ancestor(exp.In, exp.Exists), exp.In | exp.Exists):
        return "inside IN, duplicates do not matter"
    return None


def _counts_a_key(root: exp.Expression, schema: Schema) -> str | None:
    counts = [count for count in root.find_all(exp.Count) if not isinstance(count.this, exp.Star)]
    if len(counts) != 1:
        return None
    inner = counts[0].this.expressions[0] if isinstance(counts[0].this, exp.Distinct) else counts[0].this
    select = counts[0].parent_select
    single = select is not None and not select.args.get("joins")
    if single and isinstance(inner, exp.Column) and _is_identifier(inner, schema):
        return "an identifier does not repeat"
    return None


def _never_null(mutant: Mutant, root: exp.Expression, schema: Schema) -> str | None:
    name = mutant.change.removeprefix("count(*) to count(").removesuffix(")").lower()
    for count in root.find_all(exp.Count):
        select = count.parent_select
        if not isinstance(count.this, exp.Star) or select is None:
            continue
        keys = resolve(_placed(name, count), schema)
        if len(keys) != 1:
            continue
        table = schema.table(keys[0][0])
        column = table.column(name) if table is not None else None
        if column is not None and (column.required or key_like(column)):
            return "an identifier is never NULL"
        if keys[0] in _not_null(select, schema):
            return "the conditions leave no NULL"
    return None


def _placed(name: str, beside: exp.Expression) -> exp.Column:
    """A column reference that stands where `beside` stands."""
    column = exp.column(name)
    column.parent = beside.parent
    return column


def _not_null(select: exp.Select, schema: Schema) -> set[ColumnKey]:
    """Columns that cannot be NULL behind a SELECT's WHERE and its inner joins."""
    found: set[ColumnKey] = set()
    clauses = [select.args["where"].this] if select.args.get("where") else []
    clauses += [
        join.args["on"] for join in select.args.get("joins") or [] if join.args.get("on") and not join.side
    ]
    for clause in clauses:
        found |= _rejected(clause, schema)
    return found


def _rejected(condition: exp.Expression, schema: Schema) -> set[ColumnKey]:
    """Columns whose NULL makes a condition fail."""
    if isinstance(condition, exp.Paren):
        return _rejected(condition.this, schema)
    if isinstance(condition, exp.And):
        return _rejected(condition.left, schema) | _rejected(condition.right, schema)
    if isinstance(condition, exp.Or):
        return _rejected(condition.left, schema) & _rejected(condition.right, schema)
    inner = condition.this if isinstance(condition, exp.Not) else condition
    if not isinstance(inner, _REJECTS_NULL) and not (isinstance(inner, exp.Is) and inner is not condition):
        return set()
    sides = [side for side in (inner.this, inner.args.get("expression")) if isinstance(side, exp.Column)]
    return {key for side in sides for key in resolve(side, schema)[:1]}


def _left_rows_vanish(mutant: Mutant, schema: Schema) -> str | None:
    """The left join that was an inner one keeps no row more."""
    tree = parse(mutant.sql)
    joins = [join for join in tree.find_all(exp.Join) if join.side == "LEFT"] if tree is not None else []
    if len(joins) != 1 or joins[0].parent_select is None:
        return None
    (join,) = joins
    select, joined = join.parent_select, join.this.name.lower()
    if any(table == joined for table, _ in _not_null(select, schema)):
        return "another condition needs the joined row"
    for node in join.args["on"].find_all(exp.EQ):
        for child, parent in ((node.left, node.right), (node.right, node.left)):
            if (
                isinstance(child, exp.Column)
                and isinstance(parent, exp.Column)
                and _refers(child, parent, joined, schema)
            ):
                return "the foreign key always finds its row"
    return None


def _refers(child: exp.Column, parent: exp.Column, joined: str, schema: Schema) -> bool:
    """Whether `child` is a foreign key to `parent`, a column of the joined table, and never NULL."""
    sources, targets = resolve(child, schema)[:1], resolve(parent, schema)[:1]
    if not sources or not targets or targets[0][0] != joined:
        return False
    table = schema.table(sources[0][0])
    column = table.column(sources[0][1]) if table is not None else None
    if table is None or column is None or not (column.required or key_like(column)):
        return False
    return any(
        source.lower() == sources[0][1] and key.table.lower() == joined
        for key in table.foreign
        for source in key.columns
    )
