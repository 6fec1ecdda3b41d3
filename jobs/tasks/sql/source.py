"""The sources of text-to-SQL: the generated sample, the study's split, Spider. And the databases of their rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jobs.tasks.contract import Progress, Source
from jobs.tasks.reading import Problems
from jobs.tasks.rows import Parts, Row, shuffled
from jobs.tasks.sql import spider, spider_create_context
from jobs.tasks.sql.data_quality import database_states
from jobs.tasks.sql.data_quality import find as faults
from jobs.tasks.sql.sample.generate import DEFAULT_ROWS, MOST_ROWS, PARTS, generate
from launcher.outcome import Failure, Reason

#: Share of Spider's training databases that are held out for the test part if dev.json is missing
#: (20 of 140, as many as Spider's own development part has).
_HELD_OUT_DATABASES = 1 / 7


def generate_sample(counts: Mapping[str, int | None], seed: int, out: Path, progress: Progress) -> Parts:
    """The built-in sample, its databases below `out`. Raises Failure(BAD_DATA) for more rows than it has."""
    wanted = {part: DEFAULT_ROWS[part] if counts[part] is None else int(counts[part] or 0) for part in PARTS}
    excess = [
        f"data.{part}_rows: {wanted[part]} asked for, the sample has no more than {MOST_ROWS[part]}"
        for part in PARTS
        if wanted[part] > MOST_ROWS[part]
    ]
    if excess:
        raise Failure(Reason.BAD_DATA, "more rows than the sample has", problems=tuple(excess))
    total, done = sum(wanted.values()), 0
    rows = {}
    for part in PARTS:
        rows[part] = generate(part, wanted[part], seed, out, partial(_report, progress, done, total))
        done += wanted[part]
    note = "made by the program itself: small, synthetic; test and validation databases are not in training"
    return Parts(rows["train"], rows["validation"], rows["test"], (note,))


def _report(progress: Progress, before: int, total: int, done: int, _of: int) -> None:
    progress(before + done, total)


def hold_out_databases(rows: Sequence[Row], seed: int, directory: Path) -> tuple[list[Row], list[Row], str]:
    """(train, test, note): whole databases leave training.

    Databases whose file is there and has rows are held out, because only they can tell answers apart; any,
    if there is none such.
    """
    files = {row.fields["db_id"]: row.fields["database"] for row in rows}
    states = database_states(directory / file for file in files.values() if file)
    # A broken file counts as empty: `copy_files` reports it if rows point at it.
    filled = sorted(name for name, file in files.items() if file and states[directory / file].empty is False)
    candidates = filled or sorted(files)
    count = min(max(1, round(len(files) * _HELD_OUT_DATABASES)), len(candidates))
    held = {candidates[position] for position in shuffled(len(candidates), seed, "databases")[:count]}
    train = [row for row in rows if row.fields["db_id"] not in held]
    test = [row for row in rows if row.fields["db_id"] in held]
    note = f"dev.json is not at hand: the test part is {len(held)} whole databases held out of training"
    return train, test, note


def copy_files(parts: Parts, base: Path, out: Path) -> Parts:
    """The databases that rows use, copied into `out`, and the rows pointing there."""
    problems = Problems()
    names: dict[str, str] = {}
    for _, rows in parts.items():
        for row in rows:
            source = row.fields["database"]
            if source is None or source in names:
                continue
            names[source] = f"databases/{row.fields['db_id']}.sqlite"
    states = database_states(base / source for source in names)
    for source in names:
        if (problem := states[base / source].problem) is not None:
            problems.add(source, f"not an SQLite database that can be read: {problem}")
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


SOURCES = (
    Source("sample", generate=generate_sample),
    Source(
        spider_create_context.NAME,
        spider_create_context.FILES,
        spider_create_context.read,
        spider_create_context.ALSO_READABLE,
    ),
    Source(spider.NAME, spider.FILES, spider.read, spider.ALSO_READABLE, hold_out=hold_out_databases),
)

__all__ = ["SOURCES", "copy_files", "faults", "generate_sample", "hold_out_databases"]
