"""Groups concurrent requests into batches that a child process answers.

Requests share a batch if model and token limit are equal. The composition of a batch can change an answer, so
callers that need reproducible answers pass a whole batch.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.rehearsal.child_process import ChildProcess
from jobs.rehearsal.errors import server_error
from jobs.rehearsal.recipe import Recipe
from jobs.rehearsal.worker_messages import (
    Conversation,
    Generated,
    GenerationReply,
    GenerationRequest,
    WorkerSettings,
)

_WINDOW_S = 0.01


@dataclass(frozen=True)
class BatchKey:
    """Requests with equal keys may share a batch."""

    base: Path
    adapter: Path | None
    max_new_tokens: int


@dataclass
class _Pending:
    key: BatchKey
    conversations: list[Conversation]
    exclusive: bool
    done: asyncio.Future[list[Generated]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class RequestBatcher:
    """One child process for each base model, started by the first request for it."""

    def __init__(self, recipe: Recipe, worker: tuple[str, ...], log: Path) -> None:
        self._recipe = recipe
        self._worker = worker
        self._log = log
        self._queue: deque[_Pending] = deque()
        self._wake = asyncio.Event()
        self._children: dict[Path, ChildProcess] = {}
        self._number = 0

    @property
    def batch_rows(self) -> int:
        return self._recipe.answer_rows

    async def answer(self, key: BatchKey, conversation: Conversation) -> Generated:
        """Answer to one request, which may share a batch with others."""
        return (await self._put(_Pending(key, [conversation], exclusive=False)))[0]

    async def answer_together(self, key: BatchKey, conversations: list[Conversation]) -> list[Generated]:
        """Answers to these conversations, in a batch of their own."""
        return await self._put(_Pending(key, conversations, exclusive=True))

    async def _put(self, pending: _Pending) -> list[Generated]:
        self._queue.append(pending)
        self._wake.set()
        return await pending.done

    async def run(self) -> None:
        """Answer requests until cancelled; then end the child processes."""
        try:
            while True:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(_WINDOW_S)
                group = self._take()
                if group:
                    await self._answer(group)
        finally:
            for child in self._children.values():
                child.kill()
                # Resource usage counts only children that were waited for.
                await child.wait()

    def _take(self) -> list[_Pending]:
        """The oldest request and others that may share its batch, without those whose client disconnected."""
        while self._queue and self._queue[0].done.done():
            self._queue.popleft()
        if not self._queue:
            return []
        first = self._queue.popleft()
        group = [first]
        if first.exclusive:
            return group
        for other in list(self._queue):
            if len(group) == self.batch_rows:
                break
            if other.key == first.key and not other.exclusive and not other.done.done():
                group.append(other)
                self._queue.remove(other)
        return group

    async def _answer(self, group: list[_Pending]) -> None:
        conversations = [one for pending in group for one in pending.conversations]
        try:
            answers = await self._ask(group[0].key, conversations)
        except Exception as error:
            print(f"answering failed: {type(error).__name__}", flush=True)
            for pending in group:
                if not pending.done.done():
                    pending.done.set_exception(server_error(500))
            return
        position = 0
        for pending in group:
            count = len(pending.conversations)
            if not pending.done.done():
                pending.done.set_result(answers[position : position + count])
            position += count

    async def _ask(self, key: BatchKey, conversations: list[Conversation]) -> list[Generated]:
        child = self._children.get(key.base)
        if child is None or not child.is_running:
            child = await self._start(key.base)
        self._number += 1
        adapter = str(key.adapter) if key.adapter else None
        request = GenerationRequest(self._number, adapter, key.max_new_tokens, conversations)
        await child.send(asdict(request))
        async for report in child.reports():
            reply = GenerationReply.from_json(report)
            if reply.id != self._number:
                continue
            if reply.error is not None:
                raise RuntimeError(reply.error)
            return list(reply.answers)
        raise RuntimeError("the process that generates answers ended")

    async def _start(self, base: Path) -> ChildProcess:
        recipe = self._recipe
        settings = WorkerSettings(str(base), recipe.threads, recipe.device, recipe.answer_dtype)
        child = await ChildProcess.start([*self._worker, json.dumps(asdict(settings))], self._log)
        self._children[base] = child
        return child
