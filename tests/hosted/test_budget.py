"""`budget_usd` caps all attempts of a run: no paid stage starts beyond it, and running stages stop at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import upload_of
from staging import Study, study

from launcher.costs import budget
from launcher.costs.allowances import Allowances, Decision
from launcher.outcome import Failure, Reason
from launcher.runs.conductor import Conductor, Ended
from launcher.spec.plan import Stage
from launcher.store import runs
from launcher.store.records import TryEnd
from launcher.store.runs import Attempt

URL = "http://127.0.0.1:9/v1"
_PART = {
    "rows": 1000,
    "prompt_tokens": {"mean": 100.0},
    "answer_tokens": {"mean": 50.0},
    "training_tokens": 1_000_000,
}


class RecordingBackend:
    """A backend that records the stages to start and runs none."""

    def __init__(self) -> None:
        self.started: list[str] = []

    outlives_conductor = False

    def adopt(self, stage: Stage, number: int) -> bool:
        return False

    def started_at(self) -> dict[str, float]:
        return {}

    def held_s(self) -> dict[str, float]:
        return {}

    def has_room(self, stage: Stage) -> bool:
        return True

    def start(self, stage: Stage, number: int) -> None:
        self.started.append(stage.name)

    def running(self) -> set[str]:
        return set()

    def ended(self) -> list[Ended]:
        return []

    def end_silent(self, stage: str, failure: Failure) -> None: ...

    def stop(self) -> None:
        pass


def with_card(root: Path, budget_usd: float) -> Study:
    """A study whose data card has a million training tokens: $8."""
    one = study(root, URL, budget_usd=budget_usd)
    key = one.plan.stage("prepare").key
    directory = root / "card"
    directory.mkdir()
    (directory / "card.json").write_text(json.dumps({"parts": {"train": _PART, "test": _PART}}))
    (directory / "upload").mkdir()
    (directory / "upload" / "train.jsonl").write_bytes(upload_of(10))
    one.store.delete(f"stages/{key}")
    one.store.commit(f"stages/{key}", directory, {})
    return one


def attempt_of(one: Study) -> Attempt:
    return Attempt(one.store, one.plan.run_id, one.attempt)


def test_estimate_over_the_budget_prevents_tuning(tmp_path: Path) -> None:
    one = with_card(tmp_path, budget_usd=9.0)
    backend = RecordingBackend()
    outcome = Conductor(one.plan, one.store, attempt_of(one), backend).run()
    assert outcome is not None
    assert outcome.reason is Reason.OVER_BUDGET
    assert backend.started == []
    # A million tokens at $8, and answers of 1,000 rows: 100,000 in at $12, 50,000 out at $16.
    assert "about $10.00 are to come" in outcome.failure.what
    assert "--budget-usd" in outcome.failure.next_step


def test_estimate_within_the_budget_is_accepted(tmp_path: Path) -> None:
    one = with_card(tmp_path, budget_usd=10.01)
    assert budget.would_exceed(one.plan, one.store, attempt_of(one)) is None


def commit(one: Study, stage: str, meta: dict[str, Any], root: Path) -> None:
    directory = root / stage
    directory.mkdir()
    one.store.commit(f"stages/{one.plan.stage(stage).key}", directory, meta)


def test_spending_counts_over_all_attempts(tmp_path: Path) -> None:
    one = with_card(tmp_path, budget_usd=10.0)
    commit(one, "tune-hosted-s1", {"trained_tokens": 2_150_968}, tmp_path)
    attempt = attempt_of(one)
    assert round(budget.spent_usd(one.plan, one.store, attempt), 2) == 17.21
    refusal = budget.over_budget(one.plan, one.store, attempt, {})
    assert refusal is not None
    assert "$17.21 are spent" in refusal.what
    later = Attempt(one.store, one.plan.run_id, 2)
    later.put("request.json", {"format": 1, "budget_usd": 20.0})
    assert budget.over_budget(one.plan, one.store, later, {}) is None
    assert budget.spent_usd(one.plan, one.store, later) == pytest.approx(17.207744)


def test_gpu_hours_of_failed_tries_count(tmp_path: Path) -> None:
    one = with_card(tmp_path, budget_usd=1.0)
    stage = one.plan.stage("tune-hosted-s1")
    on_gpu = stage.model_copy(
        update={"resources": stage.resources.model_copy(update={"device": "NVIDIA-A40", "gpus": 1})}
    )
    plan = one.plan.model_copy(update={"stages": (*one.plan.stages[:1], on_gpu, *one.plan.stages[2:])})
    attempt = attempt_of(one)
    attempt.begin_try(stage.name, 1, 1000.0)
    attempt.end_try(stage.name, 1, TryEnd(ended_at=1000.0 + 3600, reason=Reason.KILLED))
    assert budget.spent_usd(plan, one.store, attempt) == pytest.approx(0.475)
    # A running hour fits into the budget; another half an hour does not.
    assert budget.over_budget(plan, one.store, attempt, {stage.name: 3600.0}) is None
    assert budget.over_budget(plan, one.store, attempt, {stage.name: 5400.0}) is not None


def test_no_budget_refuses_nothing(tmp_path: Path) -> None:
    one = study(tmp_path, URL)
    assert budget.would_exceed(one.plan, one.store, attempt_of(one)) is None
    assert budget.over_budget(one.plan, one.store, attempt_of(one), {}) is None
    stage = one.plan.stage("tune-hosted-s1")
    assert Allowances(one.plan, one.store, attempt_of(one)).grant(stage, set()) is Decision.START
    assert runs.ledger_entries(one.store, one.plan.run_id) == []
