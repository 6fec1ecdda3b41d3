"""`python -m jobs count`: tokens of a plan's rows, for `launcher plan`; writes nothing but JSON to stdout."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from jobs.data import tokens
from jobs.data.splits import collect
from launcher.outcome import Failure
from launcher.spec.names import relative_path
from launcher.spec.stages import PrepareSettings


def main(arguments: list[str]) -> int:
    """`arguments` is one path of JSON: `settings` (PrepareSettings) and `locations` (input name -> path).

    Prints the fields of launcher.costs.estimate.TokenCounts, means over rows in cl100k_base tokens; if the data
    cannot be used, prints the failure (`Failure.to_json`) and returns its exit code.
    """
    request = json.loads(Path(arguments[0]).read_bytes())
    settings = PrepareSettings.model_validate_json(json.dumps(request["settings"]))
    locations: dict[str, str] = request["locations"]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            print(json.dumps(_counts(settings, locations, Path(temporary))))
        except Failure as failure:
            print(json.dumps(_with_source_paths(failure, temporary, locations).to_json()))
            return failure.exit_code
    return 0


def _counts(settings: PrepareSettings, locations: dict[str, str], directory: Path) -> dict[str, Any]:
    for name, location in locations.items():
        relative_path(name)
        link = directory / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(location).absolute())
    parts = collect(settings.task, settings.data, directory, lambda _done, _total: None)
    return {
        "train_rows": len(parts.train),
        "test_rows": len(parts.test),
        "upload_tokens": sum(map(tokens.training_tokens, parts.train)),
        "train_tokens_per_row": fmean(tokens.prompt_tokens(r) + tokens.answer_tokens(r) for r in parts.train),
        "test_prompt_tokens_per_row": fmean(map(tokens.prompt_tokens, parts.test)),
        "test_answer_tokens_per_row": fmean(map(tokens.answer_tokens, parts.test)),
    }


def _with_source_paths(failure: Failure, links: str, locations: dict[str, str]) -> Failure:
    """The failure with the user's directory in place of the temporary one of links, which is gone by now."""
    # Generated rows come from no directory.
    source = next((location.removesuffix(f"/{name}") for name, location in locations.items()), "")
    where = failure.where.replace(links, source) if failure.where.startswith(links) else failure.where
    return Failure(
        failure.reason,
        failure.what,
        where=where,
        problems=tuple(problem.replace(links, source) for problem in failure.problems),
        next_step=failure.next_step,
        cause=failure.cause,
    )
