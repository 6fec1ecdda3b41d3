"""A run's three parts: which rows, sampled and carved so that a smaller request is a subset of a larger one.

Sampling shuffles a part's positions with the seed and takes them from the front; validation rows that
have to come out of the training part are taken from the back. Whatever is taken stays in the data's order.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs.data.sources import has_part, read_parts
from jobs.tasks.reading import Problems
from jobs.tasks.rows import Row
from jobs.tasks.sql import spider
from jobs.tasks.sql.data_quality import has_no_rows
from jobs.tasks.sql.sample.generate import DEFAULT_ROWS, MOST_ROWS, PARTS, generate
from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Data

#: Share of Spider's training databases that are held out for the test part where dev.json is not at hand
#: (20 of 140, as many as Spider's own development part has).
_HELD_OUT_DATABASES = 1 / 7


@dataclass(frozen=True)
class Parts:
    """The rows of a run, and in words where they came from."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    notes: tuple[str, ...] = ()

    def items(self) -> tuple[tuple[str, list[Row]], ...]:
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def collect(task: str, data: Data, directory: Path, beat: Callable[[int, int], None]) -> Parts:
    """Read (or, for the sample, generate into `directory`) the rows that `data` asks for.

    Raises Failure(BAD_DATA) with everything that is wrong, Failure(MISSING_INPUT) for files not there.
    """
    if data.source == "sample":
        return _sample(data, directory, beat)
    wanted = [part for part in PARTS if has_part(data.source, directory, part)]
    notes = []
    if data.source == spider.NAME:
        wanted = ["train", *(["dev"] if has_part(data.source, directory, "dev") else [])]
    elif "test" not in wanted or "train" not in wanted:
        wanted = sorted({"train", "test", *wanted}, key=PARTS.index)  # reading says what is missing
    found = read_parts(task, data.source, directory, wanted)
    train = found["train"]
    if data.source == spider.NAME and "dev" not in found:
        train, test, held_out = hold_out_databases(train, data.seed, directory)
        notes.append(
            f"dev.json is not at hand: the test part is {held_out} whole databases held out of training"
        )
    else:
        test = found["dev" if data.source == spider.NAME else "test"]
    problems = Problems()
    if "validation" in found:
        validation = choose(found["validation"], data.validation_rows, data.seed, "validation", problems)
        train = choose(train, data.train_rows, data.seed, "train", problems)
    else:
        train, validation = carve(train, data.train_rows, data.validation_rows or 0, data.seed, problems)
        notes.append(
            f"the source has no validation part: {len(validation)} training rows were set aside for it"
        )
    test = choose(test, data.test_rows, data.seed, "test", problems)
    for part, rows in (("train", train), ("test", test)):
        if not rows and not problems.lines:
            problems.add(part, "has no rows")
    problems.check(directory)
    return Parts(train, validation, test, tuple(notes))


def _sample(data: Data, directory: Path, beat: Callable[[int, int], None]) -> Parts:
    asked = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
    counts = {part: DEFAULT_ROWS[part] if asked[part] is None else int(asked[part] or 0) for part in PARTS}
    excess = [
        f"data.{part}_rows: {counts[part]} asked for, the sample has no more than {MOST_ROWS[part]}"
        for part in PARTS
        if counts[part] > MOST_ROWS[part]
    ]
    if excess:
        raise Failure(Reason.BAD_DATA, "more rows than the sample has", problems=tuple(excess))
    total, done = sum(counts.values()), 0
    rows = {}
    for part in PARTS:
        rows[part] = generate(
            part, counts[part], data.seed, directory, partial(_beat_from, beat, done, total)
        )
        done += counts[part]
    note = "made by the program itself: small, synthetic; test and validation databases are not in training"
    return Parts(rows["train"], rows["validation"], rows["test"], (note,))


def _beat_from(beat: Callable[[int, int], None], before: int, total: int, now: int, _of: int) -> None:
    beat(before + now, total)


def shuffled(count: int, seed: int, salt: str) -> list[int]:
    """The positions 0 … count-1 in the order in which sampling takes them."""
    positions = list(range(count))
    random.Random(f"tuneyard {salt} {seed}").shuffle(positions)
    return positions


def choose(rows: Sequence[Row], count: int | None, seed: int, part: str, problems: Problems) -> list[Row]:
    """`count` rows in the data's order (None: all); a smaller count chooses among these rows."""
    if count is None:
        return list(rows)
    if count > len(rows):
        problems.add(f"data.{part}_rows", f"{count} asked for, the part has {len(rows)}")
    return [rows[position] for position in sorted(shuffled(len(rows), seed, part)[:count])]


def carve(
    rows: Sequence[Row], train_rows: int | None, validation_rows: int, seed: int, problems: Problems
) -> tuple[list[Row], list[Row]]:
    """(train, validation) out of one part; no conversation up to the answer is in both."""
    order = shuffled(len(rows), seed, "train")
    held = order[len(order) - min(validation_rows, len(order)) :]
    asked = {conversation(rows[position]) for position in held}
    left = [position for position in order if conversation(rows[position]) not in asked]
    if validation_rows >= len(rows) or (train_rows or 0) > len(left):
        problems.add(
            "data.train_rows, data.validation_rows",
            f"{train_rows or 'all the rest'} and {validation_rows} asked for; the training part has "
            f"{len(rows)} rows, of which {len(left)} are left for training",
        )
    taken = left if train_rows is None else left[:train_rows]
    return [rows[p] for p in sorted(taken)], [rows[p] for p in sorted(held)]


def conversation(row: Row) -> str:
    """What the model is shown, as one text to compare by."""
    return json.dumps(row.messages[:-1])


def hold_out_databases(rows: Sequence[Row], seed: int, directory: Path) -> tuple[list[Row], list[Row], int]:
    """(train, test, databases held out): whole databases leave training.

    Held out are databases that can tell answers apart: their file is at hand and has rows. Only where
    there is none such, any.
    """
    files = {row.fields["db_id"]: row.fields["database"] for row in rows}
    filled = sorted(name for name, file in files.items() if file and not _is_empty(directory / file))
    candidates = filled or sorted(files)
    count = min(max(1, round(len(files) * _HELD_OUT_DATABASES)), len(candidates))
    held = {candidates[position] for position in shuffled(len(candidates), seed, "databases")[:count]}
    train = [row for row in rows if row.fields["db_id"] not in held]
    test = [row for row in rows if row.fields["db_id"] in held]
    return train, test, len(held)


def _is_empty(path: Path) -> bool:
    try:
        return has_no_rows(path)
    except sqlite3.Error:
        return True  # a broken file; where rows point at it, writing the databases says so
