"""Stage kind `predict`: greedy answers to every test row, batch by batch.

The rows of a batch can influence each other's answers, so batches depend on data and settings only, and
an interrupted batch is repeated as a whole. Each finished batch is a create-once object in the work
area, from which a killed stage resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.models import loading
from jobs.models.examples import prompt_tokens
from jobs.predict.batches import Prompt, batches
from jobs.predict.prediction import Prediction, PredictionFacts
from jobs.runtime.jsonl import write_jsonl
from jobs.stage import StageContext
from jobs.tasks.rows import read_rows
from launcher.outcome import Failure, Reason
from launcher.spec.stages import HostedPredictSettings, PredictSettings


def run(context: StageContext) -> None:
    """Write `predictions.jsonl`, in the order of `test.jsonl`, and `prediction.json`."""
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
    by_row = _predictions(context, settings, directory, tokenizer, planned)
    predictions = [by_row[number] for number in range(len(rows))]
    write_jsonl(
        context.out / "predictions.jsonl",
        ({"id": row.id, **prediction.to_json()} for row, prediction in zip(rows, predictions, strict=True)),
    )
    facts = PredictionFacts(
        rows=len(predictions),
        prompt_tokens=sum(prediction.prompt_tokens for prediction in predictions),
        answer_tokens=sum(prediction.answer_tokens for prediction in predictions),
        cut_at_limit=sum(prediction.finish == "length" for prediction in predictions),
        batches=len(planned),
        engine="transformers",
        dtype=settings.generation.dtype,
    )
    text = json.dumps(facts.to_json(), indent=2, sort_keys=True) + "\n"
    (context.out / "prediction.json").write_text(text)


def _predictions(
    context: StageContext,
    settings: PredictSettings,
    directory: Path,
    tokenizer: Any,
    planned: list[list[Prompt]],
) -> dict[int, Prediction]:
    """Row number -> its prediction. Batches in the work area are not repeated."""
    predictions: dict[int, Prediction] = {}
    missing = []
    for index, batch in enumerate(planned):
        stored = context.store.get_json(_batch_path(context, index))
        if stored is None:
            missing.append((index, batch))
            continue
        for prompt, value in zip(batch, stored["answers"], strict=True):
            predictions[prompt.row] = Prediction(**value)
    total = sum(map(len, planned))
    context.meta["resumed_rows"] = len(predictions)
    context.heartbeat(len(predictions), total, "rows")
    if not missing:
        return predictions
    answer = _load_model(context, settings, directory, tokenizer, planned)
    started, answer_tokens = time.monotonic(), 0
    for index, batch in missing:
        answers = answer(batch)
        context.store.put_json(
            _batch_path(context, index), {"answers": [prediction.to_json() for prediction in answers]}
        )
        predictions.update(zip((prompt.row for prompt in batch), answers, strict=True))
        answer_tokens += sum(prediction.answer_tokens for prediction in answers)
        rate = answer_tokens / (time.monotonic() - started)
        context.heartbeat(len(predictions), total, "rows", answer_tok_s=round(rate, 1))
        context.check_stop()
    context.meta["generation_seconds"] = round(time.monotonic() - started, 3)
    return predictions


def _batch_path(context: StageContext, index: int) -> str:
    return context.work_path(f"batches/{index:06d}.json")


def _load_model(
    context: StageContext,
    settings: PredictSettings,
    directory: Path,
    tokenizer: Any,
    planned: list[list[Prompt]],
) -> Callable[[list[Prompt]], list[Prediction]]:
    """Load the model, check that every prompt fits, and return a function that answers a batch."""
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
    longest = planned[0][0]  # batches are ordered by length, longest first
    check_lengths(len(longest.tokens), generation.max_new_tokens, model)
    ends = end_tokens(model, tokenizer)

    def answer(batch: list[Prompt]) -> list[Prediction]:
        started = time.monotonic()
        try:
            answers = answer_batch(
                model,
                [prompt.tokens for prompt in batch],
                ends=ends,
                max_new_tokens=generation.max_new_tokens,
            )
        except torch.OutOfMemoryError:
            raise Failure(
                Reason.OUT_OF_MEMORY, f"a batch of {len(batch)} rows does not fit on the device"
            ) from None
        latency_s = round((time.monotonic() - started) / len(batch), 4)
        return [
            Prediction(
                answer=tokenizer.decode(item.tokens, skip_special_tokens=True),
                finish=item.finish,
                prompt_tokens=len(prompt.tokens),
                answer_tokens=len(item.tokens),
                latency_s=latency_s,
            )
            for prompt, item in zip(batch, answers, strict=True)
        ]

    return answer
