"""`python -m jobs data TASK …`: what the stage prepare does, without a run."""

from __future__ import annotations

import argparse
import errno
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs import told
from jobs.data.card import summary
from jobs.data.sources import SOURCES, detect
from jobs.data.writer import prepare
from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Data

_TASKS = ("sql", "viggo", "chat")


def main(argv: Sequence[str]) -> int:
    """Prepare data into a directory and print its card; returns the exit code. Problems go to stderr."""
    arguments = _parser().parse_args(argv)
    try:
        card = _prepare(arguments)
    except Failure as failure:
        return told.tell(_of_options(failure), "data")
    if arguments.output == "json":
        print(json.dumps(card, indent=2, ensure_ascii=False))
    else:
        print(summary(card))
    return 0


def _of_options(failure: Failure) -> Failure:
    """The same failure with the options of this command in place of an experiment's keys."""
    problems = tuple(
        re.sub(r"\bdata\.(train|validation|test)_rows\b", r"--\1-rows", line) for line in failure.problems
    )
    return Failure(
        failure.reason, failure.what, where=failure.where, problems=problems, next_step=failure.next_step
    )


def _source(task: str, source: str | None, directory: Path | None) -> str:
    """The source to read. Raises Failure where it is none of the task's, or has no directory."""
    if task == "sql" and (source == "sample" or (source is None and directory is None)):
        return "sample"
    if source != "sample":
        if directory is None:
            raise Failure(
                Reason.USAGE,
                "no directory is named",
                where="--data",
                next_step="name the one with the source's files: --data DIR",
            )
        if not directory.is_dir():
            raise Failure(Reason.MISSING_INPUT, "there is no such directory", where=f"--data {directory}")
        source = source or detect(task, directory)
    if source not in SOURCES or SOURCES[source].task != task:
        names = [name for name, known in SOURCES.items() if known.task == task]
        names += ["sample"] if task == "sql" else []
        raise Failure(
            Reason.USAGE,
            f"task '{task}' cannot be prepared from it",
            where=f"--source {source}",
            next_step=f"name one of {', '.join(names)}",
        )
    return source


def _prepare(arguments: argparse.Namespace) -> dict[str, object]:
    out, directory = arguments.out, arguments.data
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(
            Reason.USAGE,
            "is there already and not an empty directory",
            where=f"--out {out}",
            next_step="name an empty or new directory: --out DIR",
        )
    data = Data.model_validate(
        {
            "source": _source(arguments.task, arguments.source, directory),
            "train_rows": arguments.train_rows,
            "validation_rows": arguments.validation_rows,
            "test_rows": arguments.test_rows,
            "seed": arguments.seed,
        }
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a directory that is half written never has the name that was asked for.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tuneyard-") as staged:
            work = Path(staged) / "out"
            work.mkdir()
            card = prepare(arguments.task, data, directory or work, work, lambda _done, _total: None)
            if out.exists():
                out.rmdir()
            work.rename(out)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise Failure(
            Reason.DISK_FULL if full else Reason.STORE_FAILED,
            f"cannot write: {error.strerror}",
            where=f"--out {out}",
            next_step="free space, or name another: --out DIR"
            if full
            else "name one that can be written: --out DIR",
        ) from None
    return card


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher data",
        description="Prepare a task's data into a directory: parts, upload files, databases and a data card.",
    )
    parser.add_argument("task", choices=_TASKS)
    parser.add_argument("--data", type=Path, metavar="DIR", help="directory with the source's files")
    parser.add_argument(
        "--source", metavar="SOURCE", help="sample, or a source's name (default: by the files)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="new or empty directory")
    parser.add_argument("--train-rows", type=_rows(1), metavar="N", help="default: all (sample: 480)")
    parser.add_argument(
        "--validation-rows", type=_rows(0), metavar="N", help="default: the source's own (sample: 60)"
    )
    parser.add_argument("--test-rows", type=_rows(1), metavar="N", help="default: all (sample: 150)")
    parser.add_argument(
        "--seed", type=_rows(0), default=0, metavar="N", help="which rows a limit takes (default: 0)"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    return parser


class _rows:
    """An argparse type: a whole number that is not below a bound."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        value = int(text)
        if value < self.least:
            raise argparse.ArgumentTypeError(f"must be at least {self.least}")
        return value

    def __repr__(self) -> str:
        return f"whole number of at least {self.least}"
