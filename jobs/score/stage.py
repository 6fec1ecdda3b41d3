"""Stage kind `score`: one contender's answers, judged. Output: `scores.jsonl`, `summary.json`."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.measures.cache import default_path
from jobs.runtime.jsonl import read_jsonl, write_jsonl
from jobs.score.scoring import score_rows
from jobs.stage import StageContext
from jobs.tasks.contract import ScoreContext
from jobs.tasks.rows import read_rows
from jobs.tasks.stage_inputs import code_errors, task_of
from launcher.outcome import Failure, Reason
from launcher.spec.stages import ScoreSettings
from launcher.spec.tasks import SCORER_PREFIX


def run(context: StageContext) -> None:
    """Score every test row. Deterministic: the same answers give the same bytes, on any number of workers."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, ScoreSettings)
    data = context.input("data")
    rows = read_rows(data.path("test.jsonl"))
    predictions = read_jsonl(context.input("predictions").path("predictions.jsonl"))
    asked, answered = [row.id for row in rows], [prediction["id"] for prediction in predictions]
    if asked != answered:
        raise Failure(
            Reason.CORRUPT_ARTIFACT, "the predictions are not for these rows, one each and in their order"
        )
    answers = [str(prediction["answer"]).encode("utf-8", "replace").decode() for prediction in predictions]

    def progress(done: int, of: int) -> None:
        context.heartbeat(done, of, "answers")
        context.check_stop()

    def find_module(module: str) -> Path:
        return context.outside(f"{SCORER_PREFIX}{module}.py")

    scoring = ScoreContext(
        # Verified when a scorer asks for it: checking every file of a large artifact takes time.
        directory=data.directory,
        settings=settings.settings,
        scorers=settings.scorers,
        find_module=find_module,
        progress=progress,
        cache=default_path() if context.may_use_cache else None,
    )
    task = task_of(context, settings.task)
    with code_errors(task):
        scores, summary = score_rows(task, scoring, rows, answers)
    write_jsonl(context.out / "scores.jsonl", [score.to_json() for score in scores])
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (context.out / "summary.json").write_text(text, encoding="utf-8")
