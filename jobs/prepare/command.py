"""`python -m jobs data TASK …`: what the stage prepare does, without a run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.prepare.card import summary
from jobs.prepare.sources import SOURCES, detect
from jobs.prepare.write import prepare
from launcher.experiment import Data
from launcher.outcome import Failure, Reason

_TASKS = ("sql", "viggo", "chat")


def main(argv: Sequence[str]) -> int:
    """Prepare data into a directory and print its card; returns the exit code. Problems go to stderr."""
    arguments = _parser().parse_args(argv)
    try:
        card = _prepare(arguments)
    except Failure as failure:
        print(failure.text(), file=sys.stderr)
        return failure.exit_code
    if arguments.output == "json":
        print(json.dumps(card, indent=2, ensure_ascii=False))
    else:
        print(summary(card))
    return 0


def _prepare(arguments: argparse.Namespace) -> dict[str, object]:
    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(Reason.USAGE, "is there already and not an empty directory", where=f"--out {out}")
    source, directory = arguments.source, arguments.data
    if directory is None and source is None and arguments.task == "sql":
        source = "sample"
    if source != "sample":
        if directory is None:
            raise Failure(Reason.USAGE, "no directory is named", where="--data", next_step="--data DIR")
        source = source or detect(arguments.task, directory)
        if source not in SOURCES or SOURCES[source].task != arguments.task:
            names = [name for name, known in SOURCES.items() if known.task == arguments.task]
            what = f"task '{arguments.task}' cannot be prepared from '{source}'"
            raise Failure(Reason.USAGE, what, where="--source", next_step=f"one of {', '.join(names)}")
    data = Data(
        source=source,
        train_rows=arguments.train_rows,
        validation_rows=arguments.validation_rows,
        test_rows=arguments.test_rows,
        seed=arguments.seed,
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
        reason = Reason.DISK_FULL if error.errno == 28 else Reason.STORE_FAILED
        raise Failure(reason, f"cannot write: {error.strerror}", where=f"--out {out}") from None
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
    parser.add_argument("--validation-rows", type=_rows(0), metavar="N", help="default: the source's own")
    parser.add_argument("--test-rows", type=_rows(1), metavar="N", help="default: all (sample: 150)")
    parser.add_argument("--seed", type=int, default=0, help="which rows are taken (default: 0)")
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
