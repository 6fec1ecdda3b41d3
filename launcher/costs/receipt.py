"""The receipt: measured seconds, tokens and dollars of a run.

Productive seconds come from the manifests of the committed stages, also of those an earlier
run paid for (marked `reused`); waiting, overhead, losses and failures from this attempt's tries.
"""

from __future__ import annotations

from typing import Any

from launcher.costs.budget import prices_of
from launcher.costs.hosted import hosted_usd, is_rehearsed
from launcher.costs.usage import account
from launcher.spec import catalog
from launcher.spec.plan import Plan, Stage
from launcher.store import Store
from launcher.store.runs import Attempt, Try

_TOKEN_MEASURES = ("tokens", "trained_tokens", "prompt_tokens", "answer_tokens")


def build(plan: Plan, store: Store, attempt: Attempt) -> dict[str, Any]:
    """The receipt of an attempt as it stands; JSON-ready. Seconds are wall-clock, dollars US."""
    tries = attempt.tries()
    prices = prices_of(attempt)
    lines = []
    for stage in plan.stages:
        lines.append(_line(stage, store, attempt, tries, prices))
    total_usd = [line["usd"] for line in lines if line["usd"] is not None]
    rehearsed_usd = [line["would_have_cost_usd"] for line in lines if line["would_have_cost_usd"] is not None]
    return {
        "stages": lines,
        "seconds": round(sum(line["seconds"] or 0.0 for line in lines), 3),
        "seconds_waiting": round(sum(line["seconds_waiting"] for line in lines), 3),
        "seconds_overhead": round(sum(line["seconds_overhead"] for line in lines), 3),
        "seconds_lost": round(sum(line["seconds_lost"] for line in lines), 3),
        "seconds_failed": round(sum(line["seconds_failed"] for line in lines), 3),
        "usd": round(sum(total_usd), 4) if total_usd else None,
        "would_have_cost_usd": round(sum(rehearsed_usd), 4) if rehearsed_usd else None,
        "prices": _prices(plan, prices),
        "hosted_prices": _hosted_prices(plan, store, prices),
    }


def _line(
    stage: Stage, store: Store, attempt: Attempt, tries: list[Try], prices: catalog.Prices
) -> dict[str, Any]:
    prefix = f"stages/{stage.key}"
    meta = store.open(prefix).manifest.meta if store.exists(prefix) else {}
    seconds = meta.get("seconds")
    price = prices.gpu(stage.resources.device)
    units = _units(stage)
    spent = account(stage, tries, seconds)
    machine_usd = round(spent.paid / 3600 * units * price.usd, 6) if price else None
    hosted = hosted_usd(stage, meta, prices)
    tokens_usd = round(hosted[0], 6) if hosted else None
    rehearsed = is_rehearsed(stage)
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "device": stage.resources.device,
        "seconds": seconds,
        "seconds_waiting": round(spent.waiting, 3),
        "seconds_overhead": round(spent.overhead, 3),
        "seconds_lost": round(spent.lost, 3),
        "seconds_failed": round(spent.failed, 3),
        "peak_memory_bytes": meta.get("peak_memory_bytes"),
        "tokens": {name: meta[name] for name in _TOKEN_MEASURES if name in meta},
        "usd": machine_usd if tokens_usd is None or rehearsed else tokens_usd,
        "would_have_cost_usd": tokens_usd if rehearsed else None,
        "reused": bool(meta) and (meta.get("run"), meta.get("attempt")) != (attempt.run_id, attempt.number),
        "measured_in": {"run": meta.get("run"), "attempt": meta.get("attempt")} if meta else None,
        "versions": meta.get("versions", {}),
    }


def _units(stage: Stage) -> int:
    """How many priced things a stage holds: GPUs, or one machine where it asks for none."""
    return stage.resources.gpus * stage.resources.nodes or 1


def _hosted_prices(plan: Plan, store: Store, prices: catalog.Prices) -> list[dict[str, Any]]:
    """The price of every hosted model's tokens in this receipt, once each."""
    found: list[dict[str, Any]] = []
    for stage in plan.stages:
        prefix = f"stages/{stage.key}"
        meta = store.open(prefix).manifest.meta if store.exists(prefix) else {}
        if hosted := hosted_usd(stage, meta, prices):
            document = hosted[1].model_dump(mode="json")
            if document not in found:
                found.append(document)
    return found


def _prices(plan: Plan, prices: catalog.Prices) -> list[dict[str, Any]]:
    found = [prices.gpu(device) for device in sorted({stage.resources.device for stage in plan.stages})]
    return [price.model_dump(mode="json") for price in found if price is not None]
