"""Source `spider`: Spider's questions with the whole schema of their database, and the databases themselves.

Layout: `tables.json`, `train_spider.json`, optionally `dev.json`, `database/ID/ID.sqlite`.
The context shows every table with types and keys, not only those that the gold query needs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jobs.tasks.reading import Problems, locate, read_json_objects, read_text, require
from jobs.tasks.rows import Row
from jobs.tasks.sql.prompt import make_row

NAME = "spider"
TRAIN, DEV, TABLES = "train_spider.json", "dev.json", "tables.json"
FILES = {"train": TRAIN, "test": DEV}
ALSO_READABLE = {"dev": DEV, "validation": DEV}

#: tables.json's five types as SQLite declares them; `others` are codes and coordinates, kept as text.
_TYPES = {"text": "TEXT", "number": "NUMERIC", "time": "TEXT", "boolean": "BOOLEAN", "others": "TEXT"}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DATABASE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
#: SQL words that SQLite takes as a name only in quotes.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        add all alter and as autoincrement between case check collate commit constraint create default
        deferrable delete distinct drop else escape except exists foreign from group having if in index
        insert intersect into is isnull join limit not notnull null on or order primary references returning
        select set table then to transaction union unique update using values when where
        """,
    )
)


def read(directory: Path, part: str, problems: Problems) -> list[Row]:
    """Rows in the file's order, ids `train-00001` or `dev-00001`; `database` is relative to `directory`."""
    path, tables = require(NAME, directory, {**FILES, **ALSO_READABLE}[part], TABLES)
    schemas = read_schemas(tables, problems)
    databases: dict[str, str | None] = {}
    prefix = "train" if part == "train" else "dev"
    rows = []
    for number, value in enumerate(read_json_objects(path, ("question", "query", "db_id"), problems), 1):
        db_id = value["db_id"]
        if db_id not in schemas:
            problems.add(f"{path.name} row {number}", f"db_id: '{db_id}' has no schema in {TABLES}")
            continue
        if db_id not in databases:
            file = locate(NAME, directory, f"database/{db_id}/{db_id}.sqlite")
            databases[db_id] = file.relative_to(directory).as_posix() if file else None
        rows.append(
            make_row(
                f"{prefix}-{number:05}",
                question=value["question"],
                gold=value["query"],
                context=schemas[db_id],
                schema=schemas[db_id],
                db_id=db_id,
                database=databases[db_id],
            )
        )
    return rows


def read_schemas(path: Path, problems: Problems) -> dict[str, str]:
    """CREATE TABLE text of every database in a tables.json."""
    text = read_text(path, problems)
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.add(path.name, f"not JSON: {error}")
        return {}
    if not isinstance(document, list):
        problems.add(path.name, "must be a list of schemas")
        return {}
    schemas = {}
    for number, value in enumerate(document, 1):
        where = f"{path.name} schema {number}"
        try:
            db_id = value["db_id"]
            # The id becomes a file name further on.
            if not isinstance(db_id, str) or not _DATABASE_ID.match(db_id):
                problems.add(where, f"db_id: {db_id!r} cannot be a file name")
                continue
            schemas[db_id] = create_table_text(value)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            problems.add(where, f"not a Spider schema: {type(error).__name__} {error}")
    return schemas


def create_table_text(schema: dict[str, Any]) -> str:
    """One CREATE TABLE statement a line for a schema of tables.json, with types, primary and foreign keys.

    A key over several columns is a nested list in `primary_keys`. Raises KeyError, IndexError,
    TypeError or ValueError if the value is not such a schema.
    """
    tables: list[str] = schema["table_names_original"]
    columns: list[tuple[int, str]] = [(table, name) for table, name in schema["column_names_original"]]
    types: list[str] = schema["column_types"]
    primary = [key if isinstance(key, list) else [key] for key in schema["primary_keys"]]
    foreign: list[tuple[int, int]] = [(source, target) for source, target in schema["foreign_keys"]]
    statements = []
    for table, table_name in enumerate(tables):
        if table_name.lower().startswith("sqlite_"):
            continue  # SQLite's internal tables (sqlite_sequence) cannot be created
        own = [index for index, (owner, _) in enumerate(columns) if owner == table]
        keys = list(dict.fromkeys(index for key in primary for index in key if columns[index][0] == table))
        parts = []
        for index in own:
            constraint = " PRIMARY KEY" if keys == [index] else ""
            parts.append(f"{quote(columns[index][1])} {_TYPES[types[index]]}{constraint}")
        if len(keys) > 1:
            parts.append(f"PRIMARY KEY ({', '.join(quote(columns[index][1]) for index in keys)})")
        for source, target in foreign:
            if columns[source][0] == table:
                owner, name = columns[target]
                reference = f"{quote(tables[owner])}({quote(name)})"
                parts.append(f"FOREIGN KEY ({quote(columns[source][1])}) REFERENCES {reference}")
        statements.append(f"CREATE TABLE {quote(table_name)} ({', '.join(parts)})")
    return ";\n".join(statements)


def quote(name: str) -> str:
    """A name as SQLite takes it, quoted if needed."""
    if _PLAIN_NAME.match(name) and name.lower() not in _RESERVED:
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
