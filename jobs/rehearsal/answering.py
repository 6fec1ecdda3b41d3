"""Collects concurrent requests into batches and has a child process answer them.

Requests share a batch where they ask the same model for the same number of tokens. A caller that
needs the same answers every time hands over a whole batch: what shares a batch can change an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.rehearsal.child import Child
from jobs.rehearsal.errors import server_error
from jobs.rehearsal.recipe import Recipe

Conversation = list[dict[str, str]]
_WINDOW_S = 0.01


@dataclass(frozen=True)
class Key:
    """What requests of one batch have in common."""

    base: Path
    adapter: Path | None
    max_new_tokens: int


@dataclass
class _Waiting:
    key: Key
    conversations: list[Conversation]
    alone: bool
    done: asyncio.Future[list[dict[str, Any]]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Answering:
    """One child for each base model, started when it is first asked."""

    def __init__(self, recipe: Recipe, worker: tuple[str, ...], log: Path) -> None:
        self._recipe = recipe
        self._worker = worker
        self._log = log
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._children: dict[Path, Child] = {}
        self._number = 0

    @property
    def batch_rows(self) -> int:
        return self._recipe.answer_rows

    async def one(self, key: Key, conversation: Conversation) -> dict[str, Any]:
        """The answer to one request; it may share a batch with others."""
        return (await self._put(_Waiting(key, [conversation], alone=False)))[0]

    async def batch(self, key: Key, conversations: list[Conversation]) -> list[dict[str, Any]]:
        """Answers to exactly these, together."""
        return await self._put(_Waiting(key, conversations, alone=True))

    async def _put(self, waiting: _Waiting) -> list[dict[str, Any]]:
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.done

    async def run(self) -> None:
        """Until cancelled; then the children are gone too."""
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
                # Waited for, so that the receipt knows what it took.
                await child.ended()

    def _take(self) -> list[_Waiting]:
        """The oldest request, and others that may share its batch; callers who left are dropped."""
        while self._queue and self._queue[0].done.done():
            self._queue.popleft()
        if not self._queue:
            return []
        first = self._queue.popleft()
        group = [first]
        if first.alone:
            return group
        for other in list(self._queue):
            if len(group) == self.batch_rows:
                break
            if other.key == first.key and not other.alone and not other.done.done():
                group.append(other)
                self._queue.remove(other)
        return group

    async def _answer(self, group: list[_Waiting]) -> None:
        conversations = [one for waiting in group for one in waiting.conversations]
        try:
            answers = await self._ask(group[0].key, conversations)
        except Exception as error:
            print(f"answering failed: {type(error).__name__}", flush=True)
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(server_error(500))
            return
        position = 0
        for waiting in group:
            count = len(waiting.conversations)
            if not waiting.done.done():
                waiting.done.set_result(answers[position : position + count])
            position += count

    async def _ask(self, key: Key, conversations: list[Conversation]) -> list[dict[str, Any]]:
        child = self._children.get(key.base)
        if child is None or not child.alive:
            child = await self._start(key.base)
        self._number += 1
        await child.say(
            {
                "id": self._number,
                "adapter": str(key.adapter) if key.adapter else None,
                "max_new_tokens": key.max_new_tokens,
                "conversations": conversations,
            }
        )
        async for reply in child.reports():
            if reply["id"] != self._number:
                continue
            if "error" in reply:
                raise RuntimeError(reply["error"])
            answers: list[dict[str, Any]] = reply["answers"]
            return answers
        raise RuntimeError("the answering process ended")

    async def _start(self, base: Path) -> Child:
        settings = {
            "model": str(base),
            "threads": self._recipe.threads,
            "device": self._recipe.device,
            "dtype": self._recipe.answer_dtype,
        }
        child = await Child.start([*self._worker, json.dumps(settings)], self._log)
        self._children[base] = child
        return child
