"""Random words, the same for every seed of the data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from jobs.tasks.contract import Progress, Source
from jobs.tasks.rows import Parts

from .prompt import make_row

_DEFAULT_ROWS = {"train": 24, "validation": 4, "test": 8}


def generate(counts: Mapping[str, int | None], seed: int, _out: Path, progress: Progress) -> Parts:
    rows = {}
    for part, default in _DEFAULT_ROWS.items():
        generator = random.Random(f"{part} {seed}")
        number = counts[part]
        words = [
            "".join(generator.choices("abcdefgh", k=generator.randint(3, 8)))
            for _ in range(default if number is None else number)
        ]
        rows[part] = [make_row(f"{part}-{index}", word) for index, word in enumerate(words, 1)]
        progress(len(words), len(words))
    return Parts(rows["train"], rows["validation"], rows["test"])


SOURCES = (Source("generated", generate=generate),)
