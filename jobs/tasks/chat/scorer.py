"""Scorers of conversations: those of `BUILT_IN`, or a function in a file of the user's.

A user's function is `def score(answer: str, gold: str, row: dict) -> bool` in a module named in the
experiment as `module:function`; the file is an input of the stage. It runs in this process, with
its rights.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.measures.row_score import RowScore
from jobs.tasks.contract import ScoreContext, Scored
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason

Scorer = Callable[[str, str, dict[str, Any]], bool]

_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_CHOICE_SAID = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+is)?\s*[:=]?\s*\(?([A-Za-z])\b\)?", re.IGNORECASE
)
_CHOICE_ALONE = re.compile(r"\s*[\(\[]?([A-Za-z])[\)\].:]?(?:\s|\Z)")
_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_MAX_CHARACTERS = 1_000_000


def exact(answer: str, gold: str, _row: dict[str, Any]) -> bool:
    """The same characters, outer white space aside."""
    return answer.strip() == gold.strip()


def choice(answer: str, gold: str, _row: dict[str, Any]) -> bool:
    """The same choice: a letter ("B", "(B)", "B. because …", "the answer is B"), else the same words.

    Case, outer white space and a final full stop do not count. If the gold is not a single letter,
    the first line of the answer must be the gold's words.
    """
    wanted = _plain(gold)
    letter = re.fullmatch(r"\(?([a-z])\)?", wanted)
    if letter is None:
        return wanted in (_plain(answer), _plain(answer.strip().split("\n", 1)[0]))
    alone, said = _CHOICE_ALONE.match(answer), _CHOICE_SAID.search(answer)
    # "A good answer is B" starts with an article, so an announced choice wins over a leading letter.
    found = said or alone
    return found is not None and found[1].lower() == letter[1]


def number(answer: str, gold: str, _row: dict[str, Any]) -> bool:
    """The last number of each is the same (in a gold with "####", what follows it), to a relative 1e-6."""
    wanted, found = _last_number(gold.rsplit("####", 1)[-1]), _last_number(answer)
    return (
        wanted is not None and found is not None and math.isclose(wanted, found, rel_tol=1e-6, abs_tol=1e-9)
    )


def json_equal(answer: str, gold: str, _row: dict[str, Any]) -> bool:
    """The same JSON value; order of keys and spacing are free, and so is a fenced block around it."""
    wanted, found = _json(gold), _json(answer)
    return wanted is not None and found is not None and _same_json(wanted[0], found[0])


BUILT_IN: Mapping[str, Scorer] = {"exact": exact, "choice": choice, "number": number, "json": json_equal}


def scorers(names: Sequence[str], find_module: Callable[[str], Path]) -> dict[str, Scorer]:
    """Name -> scorer. `find_module` gives the file of a user's module.

    Raises Failure(USAGE) for an unknown name, Failure(BAD_DATA) for a file without that function.
    """
    found: dict[str, Scorer] = {}
    for name in names:
        if name in BUILT_IN:
            found[name] = BUILT_IN[name]
        elif ":" in name:
            module, function = name.split(":", 1)
            found[name] = _load(find_module(module), module, function)
        else:
            raise Failure(
                Reason.USAGE, f"no scorer '{name}'; there are {', '.join(BUILT_IN)} and module:function"
            )
    return found


def score(rows: Sequence[Row], answers: Sequence[str], context: ScoreContext) -> Scored:
    """A score per row by each scorer that the experiment names; the first one's is the primary measure.

    Raises Failure(USAGE) for an unknown scorer, Failure(BAD_DATA) if a user's scorer fails.
    """
    chosen = scorers(context.scorers or ("exact",), context.find_module)
    return Scored([_score_row(row, answer, chosen) for row, answer in zip(rows, answers, strict=True)])


def _score_row(row: Row, answer: str, chosen: Mapping[str, Scorer]) -> RowScore:
    scores = {}
    for name, scorer in chosen.items():
        try:
            scores[name] = bool(scorer(answer, row.gold, dict(row.fields)))
        except Exception as error:
            # The user's code may raise anything.
            what = f"{type(error).__name__}: {error}"
            raise Failure(
                Reason.BAD_DATA, f"the scorer failed: {what}", where=f"{name}, row {row.id}"
            ) from error
    wrong = [name for name, verdict in scores.items() if not verdict]
    return RowScore(row.id, answer, row.gold, True, scores, f"wrong by {', '.join(wrong)}" if wrong else None)


def _load(path: Path, module: str, function: str) -> Scorer:
    spec = importlib.util.spec_from_file_location(f"tuneyard_scorers.{module}", path)
    if spec is None or spec.loader is None:
        # A file in the store has no .py in its name.
        loader = importlib.machinery.SourceFileLoader(f"tuneyard_scorers.{module}", str(path))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise Failure(
            Reason.BAD_DATA, f"cannot be loaded: {type(error).__name__}: {error}", where=module
        ) from error
    finally:
        sys.dont_write_bytecode = written
    scorer: Any = getattr(loaded, function, None)
    if not callable(scorer):
        raise Failure(Reason.BAD_DATA, f"has no function '{function}'", where=module)
    found: Scorer = scorer
    return found


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip().rstrip(".").strip().lower()


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text[-_MAX_CHARACTERS:])
    return float(found[-1].replace(",", "")) if found else None


def _json(text: str) -> tuple[Any] | None:
    fenced = _FENCE.search(text)
    try:
        return (json.loads(fenced[1] if fenced else text),)
    except (ValueError, RecursionError):
        return None


def _same_json(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same_json, a, b))
    return bool(a == b)
