"""What the names of an experiment were resolved to: the plan's only view of the outside world.

`resolve.py` makes a Lock, `launcher plan --lock FILE` writes it, and a locked experiment plans
offline. It depends on the content of files, not on their paths.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from launcher.outcome import Failure, Reason
from launcher.spec.names import RelativePath, Sha256
from launcher.spec.stages import HubData, ModelSource
from launcher.spec.strict import Strict

FORMAT = 1


class LockedModel(Strict):
    """One model name, resolved: its source, and the digests of its files if they are pushed."""

    source: ModelSource
    files: dict[RelativePath, Sha256] = {}


class Lock(Strict):
    """Every outside name of an experiment as digests and revisions."""

    format: Literal[1] = 1
    models: dict[str, LockedModel] = {}
    data_source: HubData | None = None
    data_files: dict[RelativePath, Sha256] = {}
    scorer_files: dict[RelativePath, Sha256] = {}
    #: The files of a task folder of the user's own, by their path in it.
    task_files: dict[RelativePath, Sha256] = {}

    @model_serializer(mode="wrap")
    def _without_empty_task(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if not self.task_files:
            del plain["task_files"]
        return plain

    def model(self, name: str) -> LockedModel:
        """Raises Failure(MISSING_INPUT) for a name that was not resolved."""
        if name not in self.models:
            raise Failure(
                Reason.MISSING_INPUT,
                f"the lock has no model '{name}'; it has {', '.join(self.models) or 'none'}",
                next_step="write the lock again: --relock",
            )
        return self.models[name]
