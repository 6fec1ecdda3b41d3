"""Receipts: productive, lost and failed seconds, and dollars with their prices."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from test_conductor import commit
from tiny import LORA, UNTUNED, make_plan

from launcher.costs import budget, receipt
from launcher.costs.receipt import MeasuredIn, Receipt, ReceiptLine
from launcher.outcome import Reason
from launcher.spec.plan import Plan
from launcher.store import DirectoryStore
from launcher.store.records import TryEnd
from launcher.store.runs import Attempt

ON_A40 = [UNTUNED, {**LORA, "hardware": {"device": "NVIDIA-A40", "count": 2}}]


@pytest.fixture
def plan() -> Plan:
    return make_plan(contenders=ON_A40)


@pytest.fixture
def attempt(store: DirectoryStore, plan: Plan) -> Attempt:
    return Attempt(store, plan.run_id, 2)


def finish(attempt: Attempt, plan: Plan, stage: str, seconds: float, **meta: Any) -> None:
    here = {"run": plan.run_id, "attempt": attempt.number}
    commit(attempt.store, plan, stage, {"seconds": seconds, **here, **meta})


def tried(attempt: Attempt, stage: str, number: int, seconds: float, reason: Reason) -> None:
    attempt.begin_try(stage, number, 100.0)
    attempt.end_try(stage, number, TryEnd(ended_at=100.0 + seconds, reason=reason))


def line(document: Receipt, stage: str) -> ReceiptLine:
    (found,) = (one for one in document.stages if one.stage == stage)
    return found


def test_seconds_are_split_into_productive_lost_and_failed(attempt: Attempt, plan: Plan) -> None:
    tried(attempt, "prepare", 1, 5, Reason.KILLED)
    tried(attempt, "prepare", 2, 7, Reason.TERMINATED)
    tried(attempt, "prepare", 3, 11, Reason.INTERNAL)
    tried(attempt, "prepare", 4, 13, Reason.SUCCEEDED)
    finish(attempt, plan, "prepare", 12.5)
    document = receipt.build(plan, attempt.store, attempt)
    found = line(document, "prepare")
    assert (found.seconds, found.seconds_lost, found.seconds_failed) == (12.5, 12, 11)
    assert (document.seconds, document.seconds_lost, document.seconds_failed) == (12.5, 12, 11)


def test_gpu_stage_is_priced_per_gpu_hour_including_waste(attempt: Attempt, plan: Plan) -> None:
    tried(attempt, "train-lora-s1", 1, 1800, Reason.KILLED)
    finish(attempt, plan, "train-lora-s1", 3600, peak_memory_bytes=2**30, trained_tokens=10)
    document = receipt.build(plan, attempt.store, attempt)
    found = line(document, "train-lora-s1")
    assert found.usd == pytest.approx(1.5 * 2 * 0.475)
    assert found.tokens == {"trained_tokens": 10}
    assert document.usd == pytest.approx(1.5 * 2 * 0.475)
    (price,) = document.prices
    assert (price.device, price.usd, price.date) == ("NVIDIA-A40", 0.475, date(2023, 8, 24))


def test_cpu_without_a_price_has_no_dollars(store: DirectoryStore) -> None:
    plan = make_plan()
    attempt = Attempt(store, plan.run_id, 1)
    finish(attempt, plan, "prepare", 60)
    document = receipt.build(plan, store, attempt)
    assert line(document, "prepare").usd is None
    assert (document.usd, document.prices) == (None, ())


def test_cpu_price_of_the_request_is_used(store: DirectoryStore) -> None:
    plan = make_plan()
    attempt = Attempt(store, plan.run_id, 1)
    own = {"device": "cpu", "usd": 3.6, "source": "power and wear", "date": "2026-07-01"}
    attempt.put("request.json", {"gpu_hour_usd": [own]})
    finish(attempt, plan, "prepare", 100)
    document = receipt.build(plan, store, attempt)
    assert line(document, "prepare").usd == pytest.approx(0.1)
    assert document.to_json()["prices"] == [own]


def test_stages_of_earlier_runs_and_attempts_are_marked_reused(attempt: Attempt, plan: Plan) -> None:
    finish(attempt, plan, "prepare", 3)
    commit(attempt.store, plan, "fetch-untuned", {"seconds": 5, "run": plan.run_id, "attempt": 1})
    commit(attempt.store, plan, "predict-untuned", {"seconds": 7, "run": "tiny-00000000", "attempt": 2})
    document = receipt.build(plan, attempt.store, attempt)
    reused = {one.stage: one.reused for one in document.stages}
    assert [stage for stage, value in reused.items() if value] == ["fetch-untuned", "predict-untuned"]
    assert line(document, "fetch-untuned").measured_in == MeasuredIn(run=plan.run_id, attempt=1)


def test_unfinished_run_has_a_receipt(attempt: Attempt, plan: Plan) -> None:
    attempt.begin_try("prepare", 1, 100.0)
    document = receipt.build(plan, attempt.store, attempt)
    assert document.seconds == 0
    assert all(one.seconds is None for one in document.stages)


def test_committed_stage_that_still_runs_counts_once_against_the_budget(attempt: Attempt, plan: Plan) -> None:
    # Two A40s at $0.475 an hour each: 90 minutes of work and 6 minutes of overhead.
    attempt.put("request.json", {"format": 1, "opened_at": 1.0, "budget_usd": 1.53})
    finish(attempt, plan, "train-lora-s1", 5400)
    held_s = {"train-lora-s1": 5400 + 360.0}
    assert budget.over_budget(plan, attempt.store, attempt, held_s) is None
    refusal = budget.over_budget(plan, attempt.store, attempt, {"train-lora-s1": 5400 + 720.0})
    assert refusal is not None
    assert "$1.61 are spent" in refusal.what
