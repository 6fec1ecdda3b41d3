"""The receipt: measured seconds, tokens and dollars of a run.

Productive seconds come from the manifests of the committed stages, including those of an earlier run (marked
`reused`); waiting, overhead, losses and failures come from this attempt's tries.
"""

from __future__ import annotations

from collections.abc import Iterable

from launcher.costs.budget import prices_of
from launcher.costs.hosted import hosted_usd, is_rehearsed
from launcher.costs.machine import machine_usd
from launcher.costs.usage import account
from launcher.spec.catalog import GpuPrice, HostedPrice, Prices
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.records import Record, StageMeta
from launcher.store.runs import Attempt, Try, stage_meta


class MeasuredIn(Record):
    """The attempt that carried a stage out."""

    run: str | None = None
    attempt: int | None = None


class ReceiptLine(Record):
    """One stage. Dollars are None without a price; `would_have_cost_usd` is a rehearsed service's."""

    stage: str
    kind: str = ""
    device: str
    seconds: float | None = None
    seconds_waiting: float = 0.0
    seconds_overhead: float = 0.0
    seconds_lost: float = 0.0
    seconds_failed: float = 0.0
    peak_memory_bytes: int | None = None
    tokens: dict[str, int | float] = {}
    usd: float | None = None
    would_have_cost_usd: float | None = None
    reused: bool = False
    measured_in: MeasuredIn | None = None
    versions: dict[str, str] = {}


class Receipt(Record):
    """receipt.json: a line per stage, totals, and every price used."""

    stages: tuple[ReceiptLine, ...]
    seconds: float
    seconds_waiting: float = 0.0
    seconds_overhead: float = 0.0
    seconds_lost: float = 0.0
    seconds_failed: float = 0.0
    usd: float | None = None
    would_have_cost_usd: float | None = None
    prices: tuple[GpuPrice, ...] = ()
    hosted_prices: tuple[HostedPrice, ...] = ()


def build(plan: Plan, store: Store, attempt: Attempt) -> Receipt:
    """The receipt of an attempt, finished or not. Seconds are wall-clock, dollars US."""
    tries = attempt.tries()
    prices = prices_of(attempt)
    metas = {stage.name: stage_meta(store, stage) for stage in plan.stages}
    lines = tuple(_line(stage, metas[stage.name], attempt, tries, prices) for stage in plan.stages)
    return Receipt(
        stages=lines,
        seconds=round(sum(line.seconds or 0.0 for line in lines), 3),
        seconds_waiting=round(sum(line.seconds_waiting for line in lines), 3),
        seconds_overhead=round(sum(line.seconds_overhead for line in lines), 3),
        seconds_lost=round(sum(line.seconds_lost for line in lines), 3),
        seconds_failed=round(sum(line.seconds_failed for line in lines), 3),
        usd=_sum(line.usd for line in lines),
        would_have_cost_usd=_sum(line.would_have_cost_usd for line in lines),
        prices=_gpu_prices(plan, prices),
        hosted_prices=_hosted_prices(plan, metas, prices),
    )


def _line(
    stage: Stage, meta: StageMeta | None, attempt: Attempt, tries: list[Try], prices: Prices
) -> ReceiptLine:
    measured = meta or StageMeta()
    spent = account(stage, tries, measured.seconds)
    of_machine = machine_usd(stage, spent.paid / 3600, prices)
    of_machine = None if of_machine is None else round(of_machine, 6)
    hosted = hosted_usd(stage, measured.measured_tokens, prices)
    of_tokens = round(hosted[0], 6) if hosted else None
    rehearsed = is_rehearsed(stage)
    reused = meta is not None and (meta.run, meta.attempt) != (attempt.run_id, attempt.number)
    return ReceiptLine(
        stage=stage.name,
        kind=stage.kind,
        device=stage.resources.device,
        seconds=measured.seconds,
        seconds_waiting=round(spent.waiting, 3),
        seconds_overhead=round(spent.overhead, 3),
        seconds_lost=round(spent.lost, 3),
        seconds_failed=round(spent.failed, 3),
        peak_memory_bytes=measured.peak_memory_bytes,
        tokens=measured.measured_tokens,
        usd=of_machine if of_tokens is None or rehearsed else of_tokens,
        would_have_cost_usd=of_tokens if rehearsed else None,
        reused=reused,
        measured_in=MeasuredIn(run=meta.run, attempt=meta.attempt) if meta else None,
        versions=measured.versions,
    )


def _sum(figures: Iterable[float | None]) -> float | None:
    """The sum of the known figures; None if there is none."""
    known = [figure for figure in figures if figure is not None]
    return round(sum(known), 4) if known else None


def _gpu_prices(plan: Plan, prices: Prices) -> tuple[GpuPrice, ...]:
    found = [prices.gpu(device) for device in sorted({stage.resources.device for stage in plan.stages})]
    return tuple(price for price in found if price is not None)


def _hosted_prices(plan: Plan, metas: dict[str, StageMeta | None], prices: Prices) -> tuple[HostedPrice, ...]:
    """The price of every hosted model's tokens in this receipt, once each."""
    found: list[HostedPrice] = []
    for stage in plan.stages:
        measured = metas[stage.name] or StageMeta()
        hosted = hosted_usd(stage, measured.measured_tokens, prices)
        if hosted and hosted[1] not in found:
            found.append(hosted[1])
    return tuple(found)
