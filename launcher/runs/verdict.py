"""The verdict of a finished run: its results with their digest, what each contender cost, and the receipt."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError, model_validator

from launcher.costs.receipt import Receipt, ReceiptLine
from launcher.outcome import Failure, Reason
from launcher.runs.figures import difference, percent, primary_kind
from launcher.spec.plan import Plan
from launcher.spec.results import ContenderResult, Results
from launcher.spec.strict import Strict, describe
from launcher.store import Store


class ContenderCost(Strict):
    """Measured time and money of one contender. Dollars are None without a price.

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
    """verdict.json. `results` are the same, with the same digest, for every attempt at a run; the rest is measured."""

    format: Literal[1] = 1
    run_id: str
    summary: str
    results_digest: str
    results: Results
    costs: list[ContenderCost]
    receipt: Receipt

    @model_validator(mode="after")
    def _about_the_same_contenders(self) -> Verdict:
        contenders = {contender.name: contender for contender in self.results.contenders}
        named = {
            self.results.baseline,
            *(name for one in self.results.comparisons for name in (one.a, one.b)),
        }
        named |= {answer.contender for sample in self.results.samples for answer in sample.answers}
        if not named <= contenders.keys() or {cost.name for cost in self.costs} != contenders.keys():
            raise ValueError("costs, comparisons and samples are not of the contenders")
        if any(self.results.primary not in one.measures for one in contenders.values()):
            raise ValueError(f"a contender has no measure {self.results.primary}")
        return self


def build(plan: Plan, store: Store, receipt: Receipt) -> dict[str, Any]:
    """The verdict of a finished run as JSON. Raises Failure if the report stage has not finished."""
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


def read(document: dict[str, Any]) -> Verdict:
    """The verdict from its JSON. Raises Failure(CORRUPT_ARTIFACT)."""
    try:
        return Verdict.model_validate(document, strict=False)
    except ValidationError as error:
        raise Failure(
            Reason.CORRUPT_ARTIFACT, "not a verdict of this format", problems=tuple(describe(error))
        ) from None


def _cost(plan: Plan, contender: ContenderResult, results: Results, receipt: Receipt) -> ContenderCost:
    rehearsed = contender.rehearsed_by is not None

    def lines(*kinds: str) -> list[ReceiptLine]:
        names = {s.name for s in plan.stages if s.kind in kinds and s.contender == contender.name}
        return [line for line in receipt.stages if line.stage in names]

    def usd(found: list[ReceiptLine]) -> float | None:
        figures = [line.would_have_cost_usd if rehearsed else line.usd for line in found]
        known = [figure for figure in figures if figure is not None]
        return round(sum(known), 6) if known and len(known) == len(figures) else None

    training, answering = lines("train", "tune"), lines("predict")
    answering_usd = usd(answering)
    primary = contender.measures[results.primary]
    # Only a share counts correct answers.
    correct = primary.correct * max(1, len(contender.seeds)) if primary.kind == "share" else 0
    return ContenderCost(
        name=contender.name,
        rehearsed=rehearsed,
        training_seconds=round(sum(line.seconds or 0.0 for line in training), 3) if training else None,
        answering_seconds=round(sum(line.seconds or 0.0 for line in answering), 3),
        answers=results.data.rows.get("test", 0) * max(1, len(contender.seeds)),
        training_usd=usd(training),
        answering_usd=answering_usd,
        usd_per_correct_answer=None
        if answering_usd is None or not correct
        else round(answering_usd / correct, 6),
    )


def _summary(results: Results) -> str:
    """One sentence on the best contender, and a second one if a hosted side was only rehearsed."""
    ranked = sorted(results.contenders, key=lambda c: -c.measures[results.primary].value)
    best = ranked[0]
    value = best.measures[results.primary].value
    asked = f"{results.data.valid_gold} {results.data.source} questions"
    kind = primary_kind(results)
    if kind == "share":
        text = f"{best.name} answers {percent(value)} of {asked} ({results.primary})"
    else:
        shown = f"{value:.4g} on average" if kind == "mean" else percent(value)
        text = f"{best.name} reaches {results.primary} {shown} on {asked}"
    for comparison in results.comparisons:
        if comparison.a == best.name and comparison.b == results.baseline:
            text = f"{text}, {difference(comparison, kind)} against {comparison.b}"
    rehearsed = [contender.name for contender in results.contenders if contender.rehearsed_by is not None]
    if not rehearsed:
        return f"{text}."
    return f"{text}. The hosted side ({', '.join(rehearsed)}) was a rehearsal: no hosted service was asked."
