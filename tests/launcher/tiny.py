"""The smallest experiment and its plan, made without a file, a network or the heavy side."""

from __future__ import annotations

from typing import Any

from launcher.experiment import Experiment, validate
from launcher.lock import Lock, LockedModel
from launcher.plan import Plan, plan
from launcher.stages import RandomModel

LOCK = Lock(models={"random-llama": LockedModel(source=RandomModel())})
UNTUNED: dict[str, Any] = {"name": "untuned", "kind": "prompted", "model": "random-llama"}
LORA: dict[str, Any] = {"name": "lora", "kind": "lora", "model": "random-llama"}
HOSTED: dict[str, Any] = {"name": "hosted", "kind": "hosted", "model": "gpt-3.5-turbo-0613"}


def document(**changes: Any) -> dict[str, Any]:
    """A valid document with `changes` at its top level."""
    return {"name": "tiny", "task": "sql", "contenders": [dict(UNTUNED), dict(LORA)], **changes}


def experiment(**changes: Any) -> Experiment:
    return validate(document(**changes), where="test")


def make_plan(**changes: Any) -> Plan:
    """prepare; fetch; predict and score untuned; train, predict and score lora; report."""
    return plan(experiment(**changes), LOCK)
