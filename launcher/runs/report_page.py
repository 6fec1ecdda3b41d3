"""The report page as Markdown, from verdict.json only."""

from __future__ import annotations

from typing import Any

from launcher.costs.receipt import Receipt
from launcher.runs.figures import difference, interval, primary_kind, usd_text
from launcher.runs.markdown import code_span, escaped, table
from launcher.runs.verdict import Verdict, read
from launcher.spec.catalog import HostedPrice
from launcher.spec.results import Measure, Results, SampleAnswer


def render(document: dict[str, Any]) -> str:
    """The report of a verdict's JSON. Raises Failure(CORRUPT_ARTIFACT)."""
    verdict = read(document)
    results = verdict.results
    lines = [f"# {verdict.run_id}", "", f"**{verdict.summary}**", ""]
    lines += _accuracy(results)
    lines += _costs(verdict)
    lines += _comparisons(results)
    lines += _curves(results)
    lines += _breakdowns(results)
    lines += _samples(results)
    lines += _receipt(verdict.receipt)
    lines += ["## What the numbers do not show", ""]
    lines += [f"- {caveat}" for caveat in [*results.caveats, *results.data.known_faults]]
    lines += ["", f"Results digest: `{verdict.results_digest}`", ""]
    return "\n".join(lines)


def _accuracy(results: Results) -> list[str]:
    names = list(results.contenders[0].measures)
    rows = [
        [
            contender.name,
            contender.kind,
            contender.model
            if contender.rehearsed_by is None
            else f"{contender.model}, rehearsed by {contender.rehearsed_by}",
            *(interval(contender.measures[name]) for name in names),
        ]
        for contender in results.contenders
    ]
    kinds = {measure.kind for contender in results.contenders for measure in contender.measures.values()}
    intervals = (
        "95 % Wilson intervals"
        if kinds <= {"share"}
        else "95 % intervals (Wilson's for shares, rows resampled for means and ratios)"
    )
    text = (
        f"{results.data.valid_gold} questions with a valid gold answer of {results.data.rows.get('test', 0)} asked; "
        f"{intervals}. The verdict's measure is `{results.primary}`."
    )
    title = "## Accuracy" if primary_kind(results) == "share" else "## Measures"
    return [title, "", text, "", *table(["contender", "kind", "model", *names], rows)]


def _costs(verdict: Verdict) -> list[str]:
    by_name = {contender.name: contender for contender in verdict.results.contenders}
    rows = []
    for cost in verdict.costs:
        tokens = by_name[cost.name].tokens
        rows.append(
            [
                cost.name,
                "–" if cost.training_seconds is None else f"{cost.training_seconds:.0f} s",
                "–" if tokens.seen_in_training is None else f"{tokens.seen_in_training:,.0f}",
                f"{cost.answering_seconds:.0f} s",
                f"{tokens.prompt:,.0f} + {tokens.answer:,.0f}",
                "–"
                if cost.training_seconds is None
                else usd_text(cost.training_usd, rehearsed=cost.rehearsed),
                usd_text(cost.answering_usd, rehearsed=cost.rehearsed),
                usd_text(cost.usd_per_correct_answer, rehearsed=cost.rehearsed),
            ]
        )
    header = [
        "contender",
        "training",
        "tokens trained on",
        "answering",
        "tokens in + out",
        "training cost",
        "answering cost",
        "cost per correct answer",
    ]
    return ["## Cost", "", *table(header, rows)]


def _comparisons(results: Results) -> list[str]:
    if not results.comparisons:
        return []
    kind = primary_kind(results)
    rows = [
        [
            f"{c.a} − {c.b}",
            difference(c, kind),
            "–" if c.only_a is None else f"{c.only_a} / {c.only_b}",
            "–" if c.p_value is None else f"{c.p_value:.2g}",
        ]
        for c in results.comparisons
    ]
    header = [
        "paired on the same rows",
        "difference, 95 % bootstrap",
        "only the first / only the second right",
        "McNemar p",
    ]
    return ["## Comparison", "", *table(header, rows)]


def _curves(results: Results) -> list[str]:
    rows = []
    for contender in results.contenders:
        for seed in contender.seeds:
            if seed.curve:
                first, last = seed.curve[0], seed.curve[-1]
                validation = [p.validation_loss for p in seed.curve if p.validation_loss is not None]
                shown = " → ".join(f"{value:.3f}" for value in validation) or "–"
                rows.append(
                    [f"{contender.name} seed {seed.seed}", f"{first.loss:.3f} → {last.loss:.3f}", shown]
                )
    header = ["training", "loss, first → last step", "validation loss"]
    return ["## Loss", "", *table(header, rows)] if rows else []


def _breakdowns(results: Results) -> list[str]:
    lines: list[str] = []
    for group in sorted({name for contender in results.contenders for name in contender.breakdowns}):
        values = sorted({v for c in results.contenders for v in c.breakdowns.get(group, {})})
        if not 1 < len(values) <= 30:
            continue
        rows = []
        for value in values:
            measures = [c.breakdowns.get(group, {}).get(value) for c in results.contenders]
            rows.append([value, *("–" if m is None else _of(m) for m in measures)])
        lines += [
            f"### By {escaped(group)}",
            "",
            *table([group, *(c.name for c in results.contenders)], rows),
        ]
    return lines


def _samples(results: Results) -> list[str]:
    lines = ["## Samples", ""] if results.samples else []
    for sample in results.samples:
        lines += [f"**{escaped(sample.question)}**", "", f"- gold: {code_span(sample.gold)}"]
        for answer in sample.answers:
            lines.append(f"- {answer.contender}, {_mark(answer)}: {code_span(answer.answer)}")
        lines.append("")
    return lines


def _of(measure: Measure) -> str:
    """A group's result: rows right of rows, or a mean's value and rows."""
    if measure.kind == "mean":
        return f"{measure.value:.4g} over {measure.of}"
    return f"{measure.correct:g} of {measure.of}"


def _mark(answer: SampleAnswer) -> str:
    if answer.correct:
        return "right"
    reason = escaped(answer.reason or "no reason given")
    if answer.correct is None:
        value = "no value" if answer.value is None else f"{answer.value:.4g}"
        return f"{value} ({reason})" if answer.reason else value
    return f"wrong ({reason})"


def price_lines(receipt: Receipt) -> list[str]:
    """Every price in the receipt, with its source and date."""
    gpus = [
        f"{price.device}: ${price.usd} per hour, {price.source}, {price.date}" for price in receipt.prices
    ]
    return gpus + [_hosted_price(price) for price in receipt.hosted_prices]


def _hosted_price(price: HostedPrice) -> str:
    names = {
        "training": "training",
        "tuned_input": "tuned in",
        "tuned_output": "tuned out",
        "input": "in",
        "output": "out",
    }
    figures = ", ".join(
        f"{label} ${getattr(price, name)}"
        for name, label in names.items()
        if getattr(price, name) is not None
    )
    return f"{price.model}: {figures} per million tokens, {price.source}, {price.date}"


def _receipt(receipt: Receipt) -> list[str]:
    rows = [
        [
            line.stage,
            line.device,
            "–" if line.seconds is None else f"{line.seconds:.1f}",
            f"{line.seconds_lost + line.seconds_failed:.1f}",
            "–" if line.peak_memory_bytes is None else f"{line.peak_memory_bytes / 2**30:.2f}",
            usd_text(line.would_have_cost_usd, rehearsed=True)
            if line.would_have_cost_usd is not None
            else usd_text(line.usd),
        ]
        for line in receipt.stages
    ]
    header = ["stage", "device", "seconds", "seconds lost or failed", "peak memory, GiB", "cost"]
    prices = [f"- {escaped(line)}" for line in price_lines(receipt)]
    if not receipt.prices:
        prices.insert(0, "- This run's devices have no price in the catalogue: its time is not priced.")
    lost_s = receipt.seconds_lost + receipt.seconds_failed
    total = f"{receipt.seconds:.0f} s productive, {lost_s:.0f} s lost or failed"
    return ["## Receipt", "", total, "", *table(header, rows), *prices, ""]
