"""Runs the stages `tune` and `predict` of a hosted contender in this process, on a small prepared artifact."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import MODEL, upload_of

from jobs.hosted import pricing
from jobs.predict import hosted
from jobs.stage import StageContext
from jobs.tasks.rows import Row, write_rows
from jobs.tune import stage as tune_stage
from launcher.costs.allowances import Allowances
from launcher.outcome import Failure
from launcher.spec.loading import validate
from launcher.spec.lock import Lock
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.stages import HostedPredictSettings
from launcher.store import DirectoryStore
from launcher.store.runs import Attempt

ROWS = 16
TEST_ROWS = 5


@dataclass
class Study:
    """A run with one hosted contender and a finished `prepare`."""

    store: DirectoryStore
    plan: Plan
    attempt: int = 1

    def context(self, name: str) -> StageContext:
        stage = self.plan.stage(name)
        base = self.store.local_path(f"runs/{self.plan.run_id}/work/{name}/scratch")
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        return StageContext(self.plan, stage, self.store, self.attempt, Path(tempfile.mkdtemp(dir=base)))

    def grant(self, name: str) -> None:
        """Grant what the conductor grants before it starts the stage. Raises its Failure."""
        attempt = Attempt(self.store, self.plan.run_id, self.attempt)
        decision = Allowances(self.plan, self.store, attempt).grant(self.plan.stage(name), set())
        if isinstance(decision, Failure):
            raise decision

    def committed(self, name: str) -> bool:
        return self.store.exists(f"stages/{self.plan.stage(name).key}")

    def tune(self) -> None:
        self.grant("tune-hosted-s1")
        context = self.context("tune-hosted-s1")
        tune_stage.run(context)
        self.store.commit(f"stages/{context.stage.key}", context.out, context.meta)

    def predict(self, name: str = "predict-hosted-s1") -> None:
        self.grant(name)
        context = self.context(name)
        settings = context.stage.typed_settings()
        assert isinstance(settings, HostedPredictSettings)
        hosted.run(context, settings)
        self.store.commit(f"stages/{context.stage.key}", context.out, context.meta)

    def output(self, stage: str, name: str) -> Any:
        path = self.store.open(f"stages/{self.plan.stage(stage).key}").path(name)
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in path.read_text().splitlines()]
        return json.loads(path.read_text())


def study(
    root: Path,
    base_url: str,
    *,
    contender: dict[str, Any] | None = None,
    described: dict[str, Any] | None = None,
    training: bytes | None = None,
    validation: bytes = b"",
    budget_usd: float | None = None,
    rows: int = ROWS,
) -> Study:
    """A study with its own store below `root`."""
    described = described or {
        "name": "hosted",
        "kind": "hosted",
        "model": MODEL,
        "base_url": base_url,
        "epochs": 1,
        "batch_rows": 4,
        **(contender or {}),
    }
    made = plan(
        validate(
            {
                "name": "study",
                "task": "chat",
                "scorers": ["exact"],
                "data": {"source": "chat"},
                "contenders": [described],
            },
            where="test",
        ),
        Lock(),
    )
    store = DirectoryStore(root / "store")
    data = root / "data"
    (data / "upload").mkdir(parents=True)
    (data / "upload" / "train.jsonl").write_bytes(upload_of(rows) if training is None else training)
    (data / "upload" / "validation.jsonl").write_bytes(validation)
    write_rows(data / "train.jsonl", [_row(number) for number in range(4)])
    write_rows(data / "test.jsonl", [_row(number) for number in range(100, 100 + TEST_ROWS)])
    uploaded = (data / "upload" / "train.jsonl").read_bytes()
    (data / "card.json").write_text(json.dumps(_card(uploaded, rows)))
    store.commit(f"stages/{made.stage('prepare').key}", data, {})
    Attempt(store, made.run_id, 1).put("request.json", {"format": 1, "budget_usd": budget_usd})
    return Study(store, made)


def _card(training: bytes, rows: int) -> dict[str, Any]:
    """The token counts of the data; 0 for an upload that a test has broken."""
    tokens = 0
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        tokens = pricing.estimated_tokens(json.loads(line) for line in training.splitlines())
    means = {"prompt_tokens": {"mean": 15.0}, "answer_tokens": {"mean": 5.0}}
    return {
        "parts": {
            "train": {"rows": rows, "training_tokens": tokens, **means},
            "test": {"rows": TEST_ROWS, "training_tokens": 0, **means},
        }
    }


def _row(number: int) -> Row:
    messages = (
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": f"answer {number}"},
    )
    return Row(f"row-{number}", messages, {"task": "chat"})
