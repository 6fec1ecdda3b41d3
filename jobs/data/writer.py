"""What prepare leaves behind: parts, uploads, databases and the card, in a directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.data import card
from jobs.data.splits import Parts, collect
from jobs.data.upload import upload_bytes
from jobs.tasks.reading import Problems
from jobs.tasks.rows import Row, write_rows
from jobs.tasks.sql.data_quality import has_no_rows
from launcher.spec.experiment import Data


def prepare(
    task: str, data: Data, directory: Path, out: Path, beat: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write everything into `out`, which exists and is empty; returns the card.

    `directory` holds the source's files; the sample is generated and needs none.
    """
    base = out if data.source == "sample" else directory
    parts = collect(task, data, base, beat)
    if task == "sql" and base != out:
        parts = _with_databases(parts, base, out)
    for part, rows in parts.items():
        write_rows(out / f"{part}.jsonl", rows)
    (out / "upload").mkdir()
    (out / "upload" / "train.jsonl").write_bytes(upload_bytes(parts.train))
    (out / "upload" / "validation.jsonl").write_bytes(upload_bytes(parts.validation))
    found = card.build(task, data, parts, out)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (out / "card.json").write_text(text, encoding="utf-8", newline="\n")
    return found


def _with_databases(parts: Parts, base: Path, out: Path) -> Parts:
    """The databases that rows use, copied into `out`, and the rows pointing there."""
    problems = Problems()
    names: dict[str, str] = {}
    for _, rows in parts.items():
        for row in rows:
            source = row.fields["database"]
            if source is None or source in names:
                continue
            names[source] = f"databases/{row.fields['db_id']}.sqlite"
            try:
                has_no_rows(base / source)
            except (sqlite3.Error, UnicodeDecodeError) as error:
                problems.add(source, f"not an SQLite database that can be read: {error}")
    problems.check(base)
    for source, name in names.items():
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(base / source, out / name)

    def pointed(row: Row) -> Row:
        database = row.fields["database"]
        return replace(row, fields={**row.fields, "database": names[database]}) if database else row

    return replace(
        parts,
        train=[pointed(row) for row in parts.train],
        validation=[pointed(row) for row in parts.validation],
        test=[pointed(row) for row in parts.test],
    )
