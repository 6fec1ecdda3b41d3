"""Process that generates answers: `python -m jobs.rehearsal.answer_worker SETTINGS`, started by request_batcher.py.

Each line of JSON on stdin is one batch; a line on stdout holds its answers. Output of libraries goes to stderr.
The models of the last used adapters stay loaded.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import OrderedDict
from pathlib import Path
from typing import Any

from jobs.models import loading
from jobs.models.generation import answer_batch, end_tokens, load
from jobs.rehearsal.worker_messages import (
    Generated,
    GeneratedAnswer,
    GenerationReply,
    GenerationRequest,
    TooLong,
    WorkerSettings,
)
from jobs.tasks.prompts import prompt_text
from jobs.tasks.rows import Row

_LOADED_MODELS = 2


class Answerer:
    """Loads adapters on demand and answers batches with greedy decoding."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._directory = Path(settings.model)
        loading.prepare(settings.threads, settings.device)
        self._tokenizer = loading.load_tokenizer(self._directory)
        self._models: OrderedDict[str | None, Any] = OrderedDict()

    def answer(self, request: GenerationRequest) -> tuple[Generated, ...]:
        """One answer per conversation."""
        model = self._model(request.adapter)
        limit = getattr(model.config, "max_position_embeddings", 1 << 30)
        prompts = [self._tokens(messages) for messages in request.conversations]
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) < limit]
        room = limit - max((len(prompts[index]) for index in fitting), default=0)
        answers: list[Generated] = [TooLong(len(prompt), limit) for prompt in prompts]
        if fitting:
            found = answer_batch(
                model,
                [prompts[index] for index in fitting],
                ends=end_tokens(model, self._tokenizer),
                max_new_tokens=min(request.max_new_tokens, room),
            )
            for index, item in zip(fitting, found, strict=True):
                text = self._tokenizer.decode(item.tokens, skip_special_tokens=True)
                answers[index] = GeneratedAnswer(text, item.finish)
        return tuple(answers)

    def _tokens(self, messages: list[dict[str, str]]) -> list[int]:
        row = Row("", (*messages, {"role": "assistant", "content": ""}))
        text = prompt_text(row, self._tokenizer, "chat")
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def _model(self, adapter: str | None) -> Any:
        if adapter not in self._models:
            while len(self._models) >= _LOADED_MODELS:
                self._models.popitem(last=False)
            self._models[adapter] = load(
                self._directory,
                Path(adapter) if adapter else None,
                dtype=self._settings.dtype,
                device=self._settings.device,
            )
        self._models.move_to_end(adapter)
        return self._models[adapter]


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answerer: Answerer | None = None
    for line in sys.stdin:
        request = GenerationRequest(**json.loads(line))
        try:
            answerer = answerer or Answerer(WorkerSettings(**json.loads(sys.argv[1])))
            reply = GenerationReply(request.id, answerer.answer(request))
        except Exception as error:
            traceback.print_exc()
            reply = GenerationReply(request.id, error=type(error).__name__)
        answers.write(json.dumps(reply.to_json()) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
