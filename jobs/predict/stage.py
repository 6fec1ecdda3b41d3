"""Stage kind `predict`: greedy answers to every test row, batch by batch.

Which rows share a batch can change an answer, so batches follow from the data and the settings
alone, and a batch that was not finished is answered again as a whole. Each finished batch is
one create-once object in the work area: what a killed stage continues from.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from jobs.jsonl import write_jsonl
from jobs.models import loading
from jobs.models.examples import prompt_tokens
from jobs.predict.batches import Prompt, batches
from jobs.stage import StageContext
from jobs.tasks.rows import read_rows
from launcher.outcome import Failure, Reason
from launcher.spec.stages import HostedPredictSettings, PredictSettings


def run(context: StageContext) -> None:
    """Write `predictions.jsonl` in the order of `test.jsonl`, and `prediction.json`."""
    settings = context.stage.typed_settings()
    if isinstance(settings, HostedPredictSettings):
        from jobs.predict import hosted

        hosted.run(context, settings)
        return
    assert isinstance(settings, PredictSettings)
    rows = read_rows(context.input("data").path("test.jsonl"))
    if not rows:
        raise Failure(Reason.BAD_DATA, "there are no test rows to answer")
    loading.prepare(settings.threads, settings.device)
    directory = context.input("model").directory()
    tokenizer = loading.load_tokenizer(directory)
    prompts = [
        Prompt(number, tuple(prompt_tokens(row, tokenizer, settings.prompt)))
        for number, row in enumerate(rows)
    ]
    planned = batches(prompts, settings.generation.batch_rows)
    answers = _answers(context, settings, directory, tokenizer, planned)
    predictions = [{"id": row.id, **answers[number]} for number, row in enumerate(rows)]
    write_jsonl(context.out / "predictions.jsonl", predictions)
    _write_totals(context, settings, predictions, len(planned))


def _answers(
    context: StageContext,
    settings: PredictSettings,
    directory: Path,
    tokenizer: Any,
    planned: list[list[Prompt]],
) -> dict[int, dict[str, Any]]:
    """Row number -> its prediction; from the work area where a batch was finished before."""
    answers: dict[int, dict[str, Any]] = {}
    missing = []
    for index, batch in enumerate(planned):
        stored = context.store.get_json(_batch_path(context, index))
        if stored is None:
            missing.append((index, batch))
        else:
            answers.update(
                {prompt.row: value for prompt, value in zip(batch, stored["answers"], strict=True)}
            )
    total = sum(map(len, planned))
    context.meta["resumed_rows"] = len(answers)
    context.heartbeat(len(answers), total, "rows")
    if not missing:
        return answers
    answer = _answerer(context, settings, directory, tokenizer, planned)
    started, answered_tokens = time.monotonic(), 0
    for index, batch in missing:
        values = answer(batch)
        context.store.put_json(_batch_path(context, index), {"answers": values})
        answers.update({prompt.row: value for prompt, value in zip(batch, values, strict=True)})
        answered_tokens += sum(value["answer_tokens"] for value in values)
        rate = answered_tokens / (time.monotonic() - started)
        context.heartbeat(len(answers), total, "rows", answer_tok_s=round(rate, 1))
        context.check_stop()
    context.meta["generation_seconds"] = round(time.monotonic() - started, 3)
    return answers


def _answerer(
    context: StageContext,
    settings: PredictSettings,
    directory: Path,
    tokenizer: Any,
    planned: list[list[Prompt]],
) -> Any:
    """A function from a batch to its predictions, around the loaded model."""
    import torch

    from jobs.models.generation import answer_batch, check_lengths, end_tokens, load

    generation = settings.generation
    adapter = context.input("adapter").directory() if context.has_input("adapter") else None
    try:
        model = load(
            directory,
            adapter,
            dtype=generation.dtype,
            device=settings.device,
            quantization=generation.quantization,
        )
    except torch.OutOfMemoryError:
        raise Failure(Reason.OUT_OF_MEMORY, "the model does not fit on the device") from None
    check_lengths(len(planned[0][0].tokens), generation.max_new_tokens, model)
    ends = end_tokens(model, tokenizer)

    def answer(batch: list[Prompt]) -> list[dict[str, Any]]:
        started = time.monotonic()
        try:
            found = answer_batch(
                model,
                [prompt.tokens for prompt in batch],
                ends=ends,
                max_new_tokens=generation.max_new_tokens,
            )
        except torch.OutOfMemoryError:
            raise Failure(
                Reason.OUT_OF_MEMORY, f"a batch of {len(batch)} rows does not fit on the device"
            ) from None
        # What a row took by itself is not known: its share of the batch.
        latency_s = round((time.monotonic() - started) / len(batch), 4)
        return [
            {
                "answer": tokenizer.decode(item.tokens, skip_special_tokens=True),
                "finish": item.finish,
                "prompt_tokens": len(prompt.tokens),
                "answer_tokens": len(item.tokens),
                "latency_s": latency_s,
            }
            for prompt, item in zip(batch, found, strict=True)
        ]

    return answer


def _batch_path(context: StageContext, index: int) -> str:
    return context.work_path(f"batches/{index:06d}.json")


def _write_totals(
    context: StageContext, settings: PredictSettings, predictions: list[dict[str, Any]], batch_count: int
) -> None:
    totals = {
        "rows": len(predictions),
        "prompt_tokens": sum(prediction["prompt_tokens"] for prediction in predictions),
        "answer_tokens": sum(prediction["answer_tokens"] for prediction in predictions),
        "cut_at_limit": sum(prediction["finish"] == "length" for prediction in predictions),
        "batches": batch_count,
        "engine": "transformers",
        "dtype": settings.generation.dtype,
    }
    (context.out / "prediction.json").write_text(json.dumps(totals, indent=2, sort_keys=True) + "\n")
