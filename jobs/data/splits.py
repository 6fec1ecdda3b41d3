"""A run's three parts: rows sampled so that a smaller request is a subset of a larger one.

Sampling shuffles a part's positions with the seed and takes them from the front; validation rows that
come out of the training part are taken from the back. Sampled rows keep the data's order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jobs.data.sources import has_part, read_parts, source_of
from jobs.tasks import registry
from jobs.tasks.contract import Progress
from jobs.tasks.reading import Problems
from jobs.tasks.registry import Task
from jobs.tasks.rows import Parts, Row, shuffled
from launcher.spec.experiment import Data

PARTS = ("train", "validation", "test")


def collect(task: Task | str, data: Data, directory: Path, progress: Progress) -> Parts:
    """The rows that `data` asks for, read from `directory`, or generated into it.

    Raises Failure(BAD_DATA) with everything that is wrong, Failure(MISSING_INPUT) for missing files.
    """
    loaded = registry.task(task)
    source = source_of(loaded, data.source)
    if source.generate is not None:
        counts = {"train": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
        return source.generate(counts, data.seed, directory, progress)
    wanted = [part for part in PARTS if has_part(source, directory, part)]
    if "train" not in wanted or ("test" not in wanted and source.hold_out is None):
        # Reading reports what is missing.
        required = {"train"} if source.hold_out is not None else {"train", "test"}
        wanted = sorted({*required, *wanted}, key=PARTS.index)
    found = read_parts(loaded, data.source, directory, wanted)
    train, notes = found["train"], []
    if "test" in found or source.hold_out is None:
        test = found["test"]
    else:
        train, test, note = source.hold_out(train, data.seed, directory)
        notes.append(note)
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
