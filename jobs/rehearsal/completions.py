"""/v1/chat/completions. Concurrent requests are answered in batches."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from jobs.data import tokens
from jobs.rehearsal import schemas
from jobs.rehearsal.errors import ApiError
from jobs.rehearsal.request_batcher import BatchKey
from jobs.rehearsal.server_context import ServerContext, json_body, tenant_of
from jobs.rehearsal.state import new_id, now
from jobs.rehearsal.worker_messages import Conversation, Generated, TooLong

#: Token limit of an answer if the request has none.
DEFAULT_ANSWER_TOKENS = 256


class Completions:
    """The endpoint /v1/chat/completions."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def create(self, request: Request) -> JSONResponse:
        params = schemas.read(schemas.CreateCompletion, await json_body(request))
        key, conversation = prepare(self._context, tenant_of(request), params)
        answer = await self._context.batcher.answer(key, conversation)
        self._context.state.count(f"{tenant_of(request)}/completions")
        return JSONResponse(completion(params.model, conversation, answer))


def prepare(
    context: ServerContext, tenant: str, params: schemas.CreateCompletion
) -> tuple[BatchKey, Conversation]:
    """The model that answers, and the conversation in plain text. Raises ApiError."""
    key = context.model_key(tenant, params.model, params.limit or DEFAULT_ANSWER_TOKENS)
    return key, [message.plain() for message in params.messages]


def prompt_tokens(conversation: Conversation) -> int:
    """Tokens as the service counts them: 3 and the values for each message, 3 for the answer's header; cl100k_base."""
    return 3 + sum(3 + sum(tokens.count(value) for value in message.values()) for message in conversation)


def completion(model: str, conversation: Conversation, answer: Generated) -> dict[str, Any]:
    """Body of a response. Raises ApiError(400) if the conversation is too long."""
    if isinstance(answer, TooLong):
        raise ApiError(
            400,
            f"This model's maximum context length is {answer.limit} tokens. However, your messages resulted "
            f"in {answer.too_long} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    prompt, written = prompt_tokens(conversation), tokens.count(answer.text)
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": now(),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.finish,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        },
        "system_fingerprint": "fp_rehearsal",
        "service_tier": "default",
    }
