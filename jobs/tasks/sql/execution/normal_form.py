"""A query's normal form: one text for all spellings (case, spacing, quotes, aliases, INNER, ASC, `<>` for `!=`)."""

from __future__ import annotations

from sqlglot import exp

from jobs.tasks.sql.execution.syntax import DIALECT, from_sources, unwrapped


def normalised(tree: exp.Expression | None, columns: frozenset[str] = frozenset()) -> str | None:
    """The normal form of a query; None if `tree` is None.

    `columns` are the schema's column names in lower case: a name in double quotes that is not among them is
    a string literal, as in SQLite.
    """
    if tree is None:
        return None
    tree = unwrapped(tree.copy())
    for column in list(tree.find_all(exp.Column)):
        name = column.this
        if (
            isinstance(name, exp.Identifier)
            and name.quoted
            and not column.table
            and columns
            and name.name.lower() not in columns
        ):
            replacement = exp.Literal.string(name.name)
            if column is tree:
                return None
            column.replace(replacement)
    _rename_tables(tree)
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.name.lower())
        identifier.set("quoted", False)
    for join in tree.find_all(exp.Join):
        if (join.args.get("kind") or "").upper() == "INNER":
            join.set("kind", None)
    for alias in list(tree.find_all(exp.Alias)):
        _drop_unused_alias(alias, tree)
    for ordered in tree.find_all(exp.Ordered):
        if not ordered.args.get("desc"):
            ordered.set("desc", None)
    return str(tree.sql(dialect=DIALECT, normalize_functions="lower"))


def _rename_tables(tree: exp.Expression) -> None:
    """Rename table aliases to t1, t2, … in order of appearance, SELECT by SELECT."""
    number = 0
    for select in list(tree.find_all(exp.Select)):
        renamed: dict[str, str] = {}
        sources = [source for source in from_sources(select) if isinstance(source, exp.Table | exp.Subquery)]
        for source in sources:
            number += 1
            old = source.alias_or_name.lower()
            renamed[old] = f"t{number}"
            source.set(
                "alias",
                exp.TableAlias(this=exp.to_identifier(f"t{number}"))
                if len(sources) > 1 or source.alias
                else None,
            )
        single = len(sources) == 1
        for column in select.find_all(exp.Column):
            if column.args.get("_renamed") or column.table.lower() not in renamed:
                continue
            local = column.parent_select is select
            column.set(
                "table", None if single and local else exp.to_identifier(renamed[column.table.lower()])
            )
            column.set("_renamed", True)
        if single and sources and isinstance(sources[0], exp.Table):
            sources[0].set("alias", None)


def _drop_unused_alias(alias: exp.Alias, tree: exp.Expression) -> None:
    """Remove an output alias that nothing refers to."""
    if not isinstance(alias.parent, exp.Select):
        return
    name = alias.alias.lower()
    if any(column.name.lower() == name for column in tree.find_all(exp.Column)):
        return
    alias.replace(alias.this)
