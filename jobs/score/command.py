"""`python -m jobs score TASK …`: score a file of answers, without a run. stdout is the result, stderr is talk."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import told
from jobs.data.sources import detect, read_part
from jobs.measures.cache import default_path
from jobs.score import explanation
from jobs.score.predictions import read_answers
from jobs.score.scoring import Scoring, score_rows
from launcher.outcome import Failure, Reason

_PROGRESS_INTERVAL_S = 0.5


def main(argv: list[str]) -> int:
    """Score as the arguments say and print the result; returns the exit code. Problems go to stderr."""
    options = _parser().parse_args(argv)
    try:
        _score(options)
    except Failure as failure:
        return told.tell(failure, "score")
    return 0


def _score(options: argparse.Namespace) -> None:
    """Raises Failure for expected errors."""
    _refuse_what_would_be_ignored(options)
    written = {"--details": options.details, "--survivors": options.survivors}
    _check_writable({option: path for option, path in written.items() if path is not None})
    source = options.source or detect(options.task, options.data)
    rows = read_part(options.task, source, options.data, options.split)
    if not rows:
        raise Failure(Reason.BAD_DATA, f"the part '{options.split}' has no rows", where=str(options.data))
    answers = read_answers(options.predictions, [row.id for row in rows])
    scoring = Scoring(
        task=options.task,
        directory=options.data,
        scorers=tuple(options.scorer),
        find_module=_module_here,
        progress=_Progress(),
        workers=options.workers,
        cache=None if options.no_cache else default_path(),
    )
    if options.explain is not None:
        place = explanation.find_row(rows, options.explain)
        found = explanation.explain(scoring, rows[place], answers[place])
        print(json.dumps(found, indent=2) if options.output == "json" else explanation.text(found))
        return
    scores, summary = score_rows(scoring, rows, answers)
    result = {"source": source, "split": options.split, **_flat(summary)}
    # First: it took long to get, and a file may still turn out not to be writable.
    print(json.dumps(result, indent=2) if options.output == "json" else _table(summary), flush=True)
    if options.details is not None:
        _write_details(options.details, [score.to_json() for score in scores])
    if options.survivors is not None:
        _write_details(options.survivors, summary["mutants"]["survivors"])


def _refuse_what_would_be_ignored(options: argparse.Namespace) -> None:
    problems = []
    if options.scorer and options.task != "chat":
        problems.append(f"--scorer is for task chat: {options.task} has measures of its own")
    if options.survivors is not None and options.task != "sql":
        problems.append(f"--survivors is for task sql: {options.task} has no mutants")
    if problems:
        raise Failure(
            Reason.USAGE,
            f"task {options.task} does not have these options",
            problems=tuple(problems),
            next_step="leave them out, or name the task they are for",
        )


def _check_writable(paths: Mapping[str, Path]) -> None:
    """Scoring can take long: that its files cannot be written is said before. What they hold stays."""
    problems = []
    for option, path in paths.items():
        target = path.resolve()
        is_new = not target.exists()
        if not is_new and not target.is_file() and not target.is_dir():
            continue  # a pipe or a terminal: opening it twice is not the same
        try:
            target.open("ab").close()
        except OSError as error:
            problems.append(f"{option} {path}: {error.strerror}")
            continue
        if is_new:
            target.unlink()
    if problems:
        raise Failure(
            Reason.USAGE, "cannot write", problems=tuple(problems), next_step="name files that can be written"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher score", description="Score a file of answers against a data set's gold answers."
    )
    parser.add_argument("task", choices=("sql", "viggo", "chat"))
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="where the data set lies")
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="train, validation, dev or test, as the data has"
    )
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="FILE",
        help='JSONL, one {"answer": …} per question',
    )
    parser.add_argument(
        "--source", metavar="NAME", help="the data's layout, where it cannot be told (default: detect)"
    )
    parser.add_argument(
        "--scorer",
        action="append",
        default=[],
        metavar="NAME",
        help="chat only: exact, choice, number, json, module:function",
    )
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="write every row's verdict there, as JSONL"
    )
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="sql only: processes (default: one per processor)"
    )
    parser.add_argument("--no-cache", action="store_true", help="score anew what was scored before")
    parser.add_argument(
        "--survivors",
        type=Path,
        metavar="FILE",
        help="sql only: write the mutants that no database kills there",
    )
    parser.add_argument(
        "--explain", metavar="ROW", help="show why one row (its id, or its number from 1) is right or wrong"
    )
    parser.add_argument("-o", "--output", choices=("json", "table"), default="table")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError("must be a number from 1 to 256")
    return int(text)


def _module_here(module: str) -> Path:
    path = Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise Failure(
            Reason.MISSING_INPUT,
            "the scorer's file is not in the current directory",
            where=str(path),
            next_step="go to the directory that holds it, or correct the name in --scorer",
        )
    return path


def _write_details(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise Failure(
            Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.USAGE,
            f"cannot write: {error.strerror}",
            where=str(path),
            next_step="name a file that can be written; the result above is complete",
        ) from None


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with its measures as plain fractions, and their intervals beside them."""
    measures = summary["measures"]
    return {
        "task": summary["task"],
        "rows": summary["rows"],
        "valid_gold": summary["valid_gold"],
        "primary": summary["primary"],
        **{name: measure["value"] for name, measure in measures.items()},
        "intervals": {name: [measure["low"], measure["high"]] for name, measure in measures.items()},
        **_mutants(summary),
        "flags": summary["flags"],
        "notes": summary["notes"],
        "reasons": summary["reasons"],
        "breakdowns": {
            group: {
                value: {"rows": m[summary["primary"]]["of"], **{name: m[name]["value"] for name in m}}
                for value, m in parts.items()
            }
            for group, parts in summary["breakdowns"].items()
        },
    }


def _mutants(summary: dict[str, Any]) -> dict[str, Any]:
    """The kill rate and its parts; the survivors themselves go to a file (`--survivors`)."""
    if "mutants" not in summary:
        return {}
    found = {name: value for name, value in summary["mutants"].items() if name != "survivors"}
    return {"mutants_killed": found["rate"], "mutants": found}


def _table(summary: dict[str, Any]) -> str:
    lines = [f"{summary['task']}: {summary['rows']} rows, {summary['valid_gold']} with valid gold", ""]
    width = max(map(len, summary["measures"]), default=0)
    for name, measure in summary["measures"].items():
        interval = f"95 % {100 * measure['low']:.1f} to {100 * measure['high']:.1f}"
        lines.append(
            f"{name:{width}}  {100 * measure['value']:5.1f} %  {interval}  ({measure['correct']} of {measure['of']})"
        )
    if "mutants" in summary:
        mutants = summary["mutants"]
        counted = mutants["mutants"] - mutants["equivalent"]
        lines.append(
            f"{'mutants_killed':{width}}  {100 * mutants['rate']:5.1f} %  ({counted - mutants['missed']} of {counted})"
        )
    if summary["reasons"]:
        lines += [
            "",
            *(
                f"{count:6}  {reason}"
                for reason, count in sorted(summary["reasons"].items(), key=lambda r: -r[1])
            ),
        ]
    return "\n".join(lines)


class _Progress:
    """How far it is, on stderr: a line that renews itself, on a terminal only."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if self._live and (now - self._shown > _PROGRESS_INTERVAL_S or done == of):
            self._shown = now
            print(
                f"\rscoring {100 * done // max(of, 1)} %",
                end="\n" if done == of else "",
                file=sys.stderr,
                flush=True,
            )
