"""`python -m jobs count`: tokens of a plan's rows, for `launcher plan`; writes nothing but the answer on stdout."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import fmean

from jobs.data import tokens
from jobs.data.splits import collect
from launcher.spec.stages import PrepareSettings
from launcher.store import check_name


def main(arguments: list[str]) -> int:
    """`arguments` is one path of JSON: `settings` (PrepareSettings) and `locations` (input name -> path).

    Prints the fields of launcher.costs.estimate.TokenCounts, means over rows in cl100k_base tokens.
    """
    request = json.loads(Path(arguments[0]).read_bytes())
    settings = PrepareSettings.model_validate_json(json.dumps(request["settings"]))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for name, location in request["locations"].items():
            check_name(name)
            link = directory / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(location).absolute())
        parts = collect(settings.task, settings.data, directory, lambda _done, _total: None)
        counts = {
            "train_rows": len(parts.train),
            "test_rows": len(parts.test),
            "upload_tokens": sum(map(tokens.training_tokens, parts.train)),
            "train_tokens_per_row": fmean(
                tokens.prompt_tokens(r) + tokens.answer_tokens(r) for r in parts.train
            ),
            "test_prompt_tokens_per_row": fmean(map(tokens.prompt_tokens, parts.test)),
            "test_answer_tokens_per_row": fmean(map(tokens.answer_tokens, parts.test)),
        }
    print(json.dumps(counts))
    return 0
