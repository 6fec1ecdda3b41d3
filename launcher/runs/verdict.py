"""The verdict: digested results, the receipt, what a correct answer costs; and the report page as text."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import ValidationError

from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan
from launcher.spec.results import Comparison, ContenderResult, Measure, Results, SampleAnswer
from launcher.spec.strict import Strict, describe
from launcher.spec.tasks import MeasureKind
from launcher.store import Store
from launcher.system.text import printable

FORMAT = 1


class ContenderCost(Strict):
    """What one contender took, measured. Dollars are None where there is no price for them.

    With `rehearsed` they are what the hosted service would have cost; nothing was paid.
    """

    name: str
    rehearsed: bool = False
    training_seconds: float | None
    answering_seconds: float
    answers: int
    training_usd: float | None
    answering_usd: float | None
    usd_per_correct_answer: float | None


class Verdict(Strict):
    """verdict.json: `results` gives the same digest each time, `receipt` and `costs` never do."""

    format: Literal[1] = 1
    run_id: str
    summary: str
    results_digest: str
    results: Results
    costs: list[ContenderCost]
    receipt: dict[str, Any]


def build(plan: Plan, store: Store, receipt: dict[str, Any]) -> dict[str, Any]:
    """The verdict of a finished run, JSON-ready. Raises Failure where the report stage has not finished."""
    path = store.open(f"stages/{plan.stage('report').key}").path("results.json")
    try:
        results = Results.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise Failure(Reason.CORRUPT_ARTIFACT, f"not results: {error}", where=str(path)) from None
    costs = [_cost(plan, contender, results, receipt) for contender in results.contenders]
    verdict = Verdict(
        run_id=plan.run_id,
        summary=_summary(results),
        results_digest=results.digest(),
        results=results,
        costs=costs,
        receipt=receipt,
    )
    return verdict.model_dump(mode="json")


def _cost(plan: Plan, contender: ContenderResult, results: Results, receipt: dict[str, Any]) -> ContenderCost:
    rehearsed = contender.rehearsed_by is not None
    figure = "would_have_cost_usd" if rehearsed else "usd"

    def lines(*kinds: str) -> list[dict[str, Any]]:
        names = {s.name for s in plan.stages if s.kind in kinds and s.contender == contender.name}
        return [line for line in receipt["stages"] if line["stage"] in names]

    def usd(found: list[dict[str, Any]]) -> float | None:
        priced = [line[figure] for line in found]
        return None if not priced or None in priced else round(sum(priced), 6)

    training, answering = lines("train", "tune"), lines("predict")
    answering_usd = usd(answering)
    primary = contender.measures[results.primary]
    # Only a share counts correct answers.
    correct = primary.correct * max(1, len(contender.seeds)) if primary.kind == "share" else 0
    return ContenderCost(
        name=contender.name,
        rehearsed=rehearsed,
        training_seconds=round(sum(line["seconds"] or 0.0 for line in training), 3) if training else None,
        answering_seconds=round(sum(line["seconds"] or 0.0 for line in answering), 3),
        answers=results.data.rows.get("test", 0) * max(1, len(contender.seeds)),
        training_usd=usd(training),
        answering_usd=answering_usd,
        usd_per_correct_answer=None
        if answering_usd is None or not correct
        else round(answering_usd / correct, 6),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(measure: Measure) -> str:
    if measure.kind == "mean":
        return f"{measure.value:.4g} [{measure.low:.4g}, {measure.high:.4g}]"
    return f"{_percent(measure.value)} [{100 * measure.low:.1f}, {100 * measure.high:.1f}]"


def _primary_kind(results: Results) -> MeasureKind:
    return results.contenders[0].measures[results.primary].kind


def _summary(results: Results) -> str:
    """One sentence on the best contender, and a second one if a hosted side was only rehearsed."""
    ranked = sorted(results.contenders, key=lambda c: -c.measures[results.primary].value)
    best = ranked[0]
    value = best.measures[results.primary].value
    asked = f"{results.data.valid_gold} {results.data.source} questions"
    kind = _primary_kind(results)
    if kind == "share":
        text = f"{best.name} answers {_percent(value)} of {asked} ({results.primary})"
    else:
        shown = f"{value:.4g} on average" if kind == "mean" else _percent(value)
        text = f"{best.name} reaches {results.primary} {shown} on {asked}"
    for comparison in results.comparisons:
        if comparison.a == best.name and comparison.b == results.baseline:
            text = f"{text}, {_difference(comparison, kind)} against {comparison.b}"
    rehearsed = [contender.name for contender in results.contenders if contender.rehearsed_by is not None]
    if not rehearsed:
        return f"{text}."
    return f"{text}. The hosted side ({', '.join(rehearsed)}) was a rehearsal: no hosted service was asked."


def _difference(comparison: Comparison, kind: MeasureKind) -> str:
    if kind == "mean":
        return f"{comparison.difference:+.4g} [{comparison.low:+.4g}, {comparison.high:+.4g}]"
    return (
        f"{100 * comparison.difference:+.1f} points "
        f"[{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}]"
    )


def _usd(value: float | None, *, rehearsed: bool = False) -> str:
    if value is None:
        return "not priced"
    return f"would have cost ${value:,.4f}" if rehearsed else f"${value:,.4f}"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    def cells(values: list[str]) -> str:
        return "| " + " | ".join(_text(value) for value in values) + " |"

    return [cells(header), "|" + " --- |" * len(header), *(cells(row) for row in rows), ""]


def render(document: dict[str, Any]) -> str:
    """The report as Markdown, from verdict.json alone."""
    try:
        verdict = Verdict.model_validate(document, strict=False)
    except ValidationError as error:
        raise Failure(
            Reason.CORRUPT_ARTIFACT, "not a verdict of this format", problems=tuple(describe(error))
        ) from None
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
            *(_interval(contender.measures[name]) for name in names),
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
    title = "## Accuracy" if _primary_kind(results) == "share" else "## Measures"
    return [title, "", text, "", *_table(["contender", "kind", "model", *names], rows)]


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
                "–" if cost.training_seconds is None else _usd(cost.training_usd, rehearsed=cost.rehearsed),
                _usd(cost.answering_usd, rehearsed=cost.rehearsed),
                _usd(cost.usd_per_correct_answer, rehearsed=cost.rehearsed),
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
    return ["## Cost", "", *_table(header, rows)]


def _comparisons(results: Results) -> list[str]:
    if not results.comparisons:
        return []
    kind = _primary_kind(results)
    rows = [
        [
            f"{c.a} − {c.b}",
            _difference(c, kind),
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
    return ["## Comparison", "", *_table(header, rows)]


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
    return ["## Loss", "", *_table(header, rows)] if rows else []


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
        lines += [f"### By {_text(group)}", "", *_table([group, *(c.name for c in results.contenders)], rows)]
    return lines


def _samples(results: Results) -> list[str]:
    lines = ["## Samples", ""] if results.samples else []
    for sample in results.samples:
        lines += [f"**{_text(sample.question)}**", "", f"- gold: {_code(sample.gold)}"]
        for answer in sample.answers:
            lines.append(f"- {answer.contender}, {_mark(answer)}: {_code(answer.answer)}")
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
    reason = _text(answer.reason or "no reason given")
    if answer.correct is None:
        value = "no value" if answer.value is None else f"{answer.value:.4g}"
        return f"{value} ({reason})" if answer.reason else value
    return f"wrong ({reason})"


_SHOWN_CHARACTERS = 300
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|&~])")


def _line(text: str) -> str:
    """One line of printable characters, cut where it is long: model output and data are hostile."""
    cut = text[: _SHOWN_CHARACTERS + 1]
    flat = printable(cut)
    return flat if len(flat) <= _SHOWN_CHARACTERS else flat[: _SHOWN_CHARACTERS - 1] + "…"


def _text(text: str) -> str:
    """Text that no Markdown in it can leave: no markup, no link, no image, no further table cell."""
    return _MARKDOWN.sub(r"\\\1", _line(text))


def _code(text: str) -> str:
    """A code span: within it only a backtick means something."""
    flat = _line(text).replace("`", "'").strip()
    return f"`{flat}`" if flat else "(empty)"


def price_lines(receipt: dict[str, Any]) -> list[str]:
    """Every price that the receipt's dollars come from, with where it stands and since when."""
    gpus = [
        f"{price['device']}: ${price['usd']} per hour, {price['source']}, {price['date']}"
        for price in receipt["prices"]
    ]
    return gpus + [_hosted_price(price) for price in receipt.get("hosted_prices", [])]


def _hosted_price(price: dict[str, Any]) -> str:
    names = {
        "training": "training",
        "tuned_input": "tuned in",
        "tuned_output": "tuned out",
        "input": "in",
        "output": "out",
    }
    figures = ", ".join(f"{label} ${price[name]}" for name, label in names.items() if price[name] is not None)
    return f"{price['model']}: {figures} per million tokens, {price['source']}, {price['date']}"


def _receipt(receipt: dict[str, Any]) -> list[str]:
    rows = [
        [
            line["stage"],
            line["device"],
            "–" if line["seconds"] is None else f"{line['seconds']:.1f}",
            f"{line['seconds_lost'] + line['seconds_failed']:.1f}",
            "–" if line["peak_memory_bytes"] is None else f"{line['peak_memory_bytes'] / 2**30:.2f}",
            _usd(line["would_have_cost_usd"], rehearsed=True)
            if line.get("would_have_cost_usd") is not None
            else _usd(line["usd"]),
        ]
        for line in receipt["stages"]
    ]
    header = ["stage", "device", "seconds", "seconds lost or failed", "peak memory, GiB", "cost"]
    prices = [f"- {_text(line)}" for line in price_lines(receipt)]
    if not receipt["prices"]:
        prices.insert(0, "- This run's devices have no price in the catalogue: its time is not priced.")
    lost_s = receipt["seconds_lost"] + receipt["seconds_failed"]
    total = f"{receipt['seconds']:.0f} s productive, {lost_s:.0f} s lost or failed"
    return ["## Receipt", "", total, "", *_table(header, rows), *prices, ""]
