"""Source `viggo`: three CSV files of meaning representation (`mr`) and sentence (`ref`)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from jobs.tasks.contract import Source
from jobs.tasks.reading import Problems, read_text, require
from jobs.tasks.rows import Row

from .prompt import make_row

NAME = "viggo"
FILES = {"train": "viggo-train.csv", "validation": "viggo-valid.csv", "test": "viggo-test.csv"}


def read(directory: Path, part: str, problems: Problems) -> list[Row]:
    """Rows in the file's order; ids are `<part>-00001` and so on."""
    path = require(NAME, directory, FILES[part])[0]
    text = read_text(path, problems)
    if text is None:
        return []
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        if missing := [key for key in ("mr", "ref") if key not in (reader.fieldnames or ())]:
            problems.add(f"{path.name}:1", f"no column {' and no column '.join(missing)}")
            return []
        for number, value in enumerate(reader, 1):
            if empty := [key for key in ("mr", "ref") if not (value[key] or "").strip()]:
                problems.add(f"{path.name}:{reader.line_num}", f"{', '.join(empty)}: missing or empty")
            rows.append(make_row(f"{part}-{number:05}", target=value["ref"] or "", meaning=value["mr"] or ""))
    except csv.Error as error:
        problems.add(f"{path.name}:{reader.line_num}", f"not CSV: {error}")
    if not rows:
        problems.add(path.name, "has no rows")
    return rows


SOURCES = (Source(NAME, FILES, read),)
