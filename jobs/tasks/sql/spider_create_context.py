"""Source `spider-create-context`: the study's split, each question with the tables its gold query needs.

Its validation file (568 questions) is what a run's verdict is about, so it is the part `test`;
it has no other held-out part. There are no databases: `schema` is the context.
"""

from __future__ import annotations

from pathlib import Path

from jobs.tasks.reading import Problems, read_json_objects, require
from jobs.tasks.rows import Row
from jobs.tasks.sql.prompt import make_row

NAME = "spider-create-context"
FILES = {"train": "spider_create_context_train.json", "test": "spider_create_context_val.json"}
#: `validation` is the study's own name of the file that is the test part of a run.
ALSO_READABLE = {"validation": FILES["test"]}
_KEYS = ("question", "context", "answer", "db_id")


def read(directory: Path, part: str, problems: Problems) -> list[Row]:
    """Rows in the file's order; ids count from `train-00001` and `validation-00001`."""
    path = require(NAME, directory, {**FILES, **ALSO_READABLE}[part])[0]
    prefix = "train" if part == "train" else "validation"
    return [
        make_row(
            f"{prefix}-{number:05}",
            question=value["question"],
            gold=value["answer"],
            context=value["context"],
            schema=value["context"],
            db_id=value["db_id"],
        )
        for number, value in enumerate(read_json_objects(path, _KEYS, problems), 1)
    ]
