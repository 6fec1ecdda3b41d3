"""From a row to the text a model reads. Training and answering call the same function: the same bytes."""

from __future__ import annotations

from typing import Any, Literal

from jobs.tasks import registry
from jobs.tasks.rows import Row
from launcher.outcome import Failure, Reason

#: The field in which `prepare` leaves the plain prompt of a user's own task, so that only it runs that code.
PLAIN_PROMPT = "plain_prompt"


def prompt_text(row: Row, tokenizer: Any, style: Literal["chat", "plain"]) -> str:
    """Everything before the answer; the answer follows without a separator, then the end-of-sequence token.

    `chat` renders with the template of `tokenizer` (any transformers tokenizer) up to and with the
    header of the assistant's turn. A template writes its own special tokens (such as a BOS), so tokenize
    the result with `add_special_tokens=False`; `plain` holds none, so tokenize it with the default.
    Raises Failure(BAD_EXPERIMENT) if the model has no chat template.
    """
    if style == "plain":
        return _plain_prompt(row)
    if not getattr(tokenizer, "chat_template", None):
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the model's tokenizer has no chat template",
            next_step="set prompt: plain on the contender",
        )
    text = tokenizer.apply_chat_template(row.prompt_messages, add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    return text


def _plain_prompt(row: Row) -> str:
    name = row.fields.get("task")
    if name is None:
        raise Failure(Reason.CORRUPT_ARTIFACT, "the row does not name its task", where=row.id)
    if registry.is_built_in(name):
        return registry.task(name).plain_prompt(row)
    if PLAIN_PROMPT not in row.fields:
        raise Failure(
            Reason.CORRUPT_ARTIFACT,
            f"the row of task '{name}' has no plain prompt, which prepare writes",
            where=row.id,
        )
    return str(row.fields[PLAIN_PROMPT])
