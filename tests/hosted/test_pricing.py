"""Tokens, steps and dollars of the study, to the cent, offline."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs.data.splits import collect
from jobs.data.upload import upload_bytes
from jobs.hosted import pricing
from launcher.costs.hosted import hosted_problem
from launcher.spec import catalog
from launcher.spec.catalog import HostedPrice
from launcher.spec.experiment import Data
from launcher.spec.stages import TuneSettings

MODEL = "gpt-3.5-turbo-0613"


def examples(task: str, source: str, shared_data: Path) -> list[dict[str, Any]]:
    data = Data.model_validate(
        {"source": source, "validation_rows": 0} if task == "sql" else {"source": source}
    )
    parts = collect(task, data, shared_data / source, lambda _done, _total: None)
    return [json.loads(line) for line in upload_bytes(parts.train).splitlines()]


@pytest.fixture(scope="module")
def sql(shared_data: Path) -> list[dict[str, Any]]:
    return examples("sql", "spider-create-context", shared_data)


@pytest.fixture(scope="module")
def viggo(shared_data: Path) -> list[dict[str, Any]]:
    return examples("viggo", "viggo", shared_data)


def training_usd(tokens: float) -> float:
    price = catalog.prices().training(MODEL)
    assert price is not None
    assert price.training is not None
    return round(pricing.usd(tokens, price.training), 2)


@pytest.mark.shared
def test_sql_upload_cost_equals_the_studys_estimate(sql: list[dict[str, Any]]) -> None:
    assert len(sql) == 3961
    tokens = pricing.estimated_tokens(sql)
    assert tokens == 499_652
    assert training_usd(tokens * 3) == 11.99


@pytest.mark.shared
def test_viggo_upload_cost_of_three_epochs(viggo: list[dict[str, Any]]) -> None:
    assert len(viggo) == 5103
    tokens = pricing.estimated_tokens(viggo)
    assert tokens == 1_085_690
    assert training_usd(tokens * 3) == 26.06


@pytest.mark.shared
def test_viggo_tokens_equal_the_bill(viggo: list[dict[str, Any]]) -> None:
    tokens = pricing.billed_tokens(viggo)
    assert tokens == 1_075_484
    assert tokens * 2 == 2_150_968
    assert training_usd(tokens * 2) == 17.21


def test_viggo_steps_equal_the_billed_run() -> None:
    batch_rows = pricing.auto_batch_rows(5103)
    assert batch_rows == 6
    assert pricing.steps(5103, 2, batch_rows) == 1701


@pytest.mark.parametrize(("hours", "usd"), [(7, 3.32), (9, 4.27)])
def test_a40_cost_equals_the_studys(hours: float, usd: float) -> None:
    price = catalog.prices().gpu("NVIDIA-A40")
    assert price is not None
    # $3.325 and $4.275; the study truncated them to cents.
    assert int(hours * price.usd * 100 + 1e-9) / 100 == usd


@pytest.mark.parametrize(
    ("rows", "epochs"), [(10, 10), (4, 25), (99, 1), (100, 1), (3961, 1), (25_000, 1), (25_001, 3)]
)
def test_default_epochs_equal_the_notebooks(rows: int, epochs: int) -> None:
    assert pricing.default_epochs(rows) == epochs


def test_every_price_has_a_source_and_a_date() -> None:
    prices = catalog.prices()
    for price in (*prices.gpu_hour_usd, *prices.hosted_per_million_tokens_usd):
        assert len(price.source) > 10
        assert date(2023, 1, 1) < price.date < date(2027, 1, 1)


@pytest.mark.parametrize(
    ("model", "read", "written"),
    [
        ("gpt-4.1", 3.0, 12.0),
        ("gpt-4.1-mini", 0.8, 3.2),
        ("gpt-4.1-nano", 0.2, 0.8),
        ("gpt-4o", 3.75, 15.0),
        ("gpt-4o-mini-2024-07-18", 0.3, 1.2),
    ],
)
def test_batch_price_is_half_of_the_last_known_price(model: str, read: float, written: float) -> None:
    whole = catalog.prices().answering(model, tuned=True, batch=False)
    half = catalog.prices().answering(model, tuned=True, batch=True)
    assert whole is not None
    assert half is not None
    assert (whole.input, whole.output) == (read, written)
    assert (half.input, half.output) == (read / 2, written / 2)


def settings(model: str, base_url: str | None = None) -> TuneSettings:
    return TuneSettings(
        task="sql",
        model=model,
        base_url=base_url,
        rehearsal=None,
        epochs=1,
        batch_rows="auto",
        learning_rate_multiplier="auto",
        seed=1,
    )


def test_model_without_a_price_is_refused() -> None:
    problem = hosted_problem(settings("gpt-9"))
    assert problem is not None
    assert all(model in problem for model in catalog.prices().hosted_models("training"))
    assert "hosted_per_million_tokens_usd" in problem


def test_price_of_the_site_file_is_used() -> None:
    own = HostedPrice(model="gpt-9", training=1.5, source="our contract", date=date(2026, 10, 1))
    assert hosted_problem(settings("gpt-9"), prices=catalog.prices().extended([], [own])) is None


def test_retired_model_is_refused_with_its_date_unless_base_url_is_given() -> None:
    today = date(2026, 11, 22)
    problem = hosted_problem(settings(MODEL), today=today)
    assert problem is not None
    assert "2026-10-23" in problem
    assert hosted_problem(settings(MODEL, "https://llm.example/v1"), today=today) is None
    assert hosted_problem(settings(MODEL), today=date(2026, 10, 22)) is None
