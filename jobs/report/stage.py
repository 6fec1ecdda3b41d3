"""Stage `report`: compares all contenders on the same rows and writes `results.json`."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import Any

from jobs.report.compare import compare, mean_measure, mean_over_seeds, value_of
from jobs.runtime.jsonl import read_jsonl
from jobs.stage import StageContext
from jobs.tasks.rows import Row, read_rows
from launcher.spec.plan import stage_name
from launcher.spec.results import (
    ContenderResult,
    DataResult,
    LossPoint,
    Measure,
    Results,
    Sample,
    SampleAnswer,
    SeedResult,
    Tokens,
)
from launcher.spec.stages import ReportContender, ReportSettings, StageKind
from launcher.spec.tasks import FACTS_FILE, INPUT_PREFIX, MeasureKind, TaskFacts, built_in, parse_facts

#: Questions shown side by side; chosen by disagreement first, then in the data's order.
SAMPLES_SHOWN = 8
_TRAINING_KINDS: tuple[StageKind, ...] = ("train", "tune")


class _Answers:
    """One contender's score and prediction artifacts, seed by seed."""

    def __init__(self, context: StageContext, contender: ReportContender) -> None:
        self.contender = contender
        self.seeds: tuple[int | None, ...] = contender.seeds or (None,)
        self.summaries: list[dict[str, Any]] = []
        self.scores: list[list[dict[str, Any]]] = []
        self.predictions: list[dict[str, Any]] = []
        self.trainings: list[dict[str, Any] | None] = []
        self.curves: list[list[LossPoint]] = []
        for seed in self.seeds:
            score = context.input(stage_name("score", contender.name, seed))
            self.summaries.append(json.loads(score.path("summary.json").read_bytes()))
            self.scores.append(read_jsonl(score.path("scores.jsonl")))
            self.predictions.append(
                json.loads(
                    context.input(stage_name("predict", contender.name, seed))
                    .path("prediction.json")
                    .read_bytes()
                )
            )
            roles = [stage_name(kind, contender.name, seed) for kind in _TRAINING_KINDS]
            trained = next((context.input(role) for role in roles if context.has_input(role)), None)
            self.trainings.append(json.loads(trained.path("training.json").read_bytes()) if trained else None)
            self.curves.append(
                [_loss_point(point) for point in read_jsonl(trained.path("curve.jsonl"))] if trained else []
            )

    def result(self) -> ContenderResult:
        measures = [_measures(summary["measures"]) for summary in self.summaries]
        primary = self.summaries[0]["primary"]
        breakdowns = [
            {
                group: {value: m[primary] for value, m in values.items()}
                for group, values in s["breakdowns"].items()
            }
            for s in self.summaries
        ]
        reasons = Counter(row["reason"] for rows in self.scores for row in rows if row["reason"])
        return ContenderResult(
            name=self.contender.name,
            kind=self.contender.kind,
            model=self.contender.model,
            rehearsed_by=self.contender.rehearsed_by,
            measures={name: self._over_seeds(name, [m[name] for m in measures]) for name in measures[0]},
            seeds=[
                SeedResult(seed=seed, measures=m, curve=curve)
                for seed, m, curve in zip(self.seeds, measures, self.curves, strict=True)
            ],
            tokens=self._tokens(),
            breakdowns={
                group: {
                    value: self._over_seeds(
                        primary, [_measure(b[group][value]) for b in breakdowns], group, value
                    )
                    for value in sorted(values)
                }
                for group, values in breakdowns[0].items()
            },
            reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:20]),
        )

    def _over_seeds(
        self, name: str, measures: list[Measure], group: str | None = None, value: str | None = None
    ) -> Measure:
        """A measure over all seeds, of the rows in one group of a breakdown or of all."""
        if measures[0].kind != "mean" or len(measures) == 1:
            return mean_measure(measures)
        if group is None:
            return mean_over_seeds(name, self.scores)
        return mean_over_seeds(name, self.scores, lambda row: row["groups"].get(group) == value)

    def _tokens(self) -> Tokens:
        count = len(self.predictions)
        trained = [training for training in self.trainings if training is not None]
        return Tokens(
            prompt=sum(p["prompt_tokens"] for p in self.predictions) / count,
            answer=sum(p["answer_tokens"] for p in self.predictions) / count,
            trained=sum(t["trained_tokens"] for t in trained) / count if trained else None,
            seen_in_training=sum(t["tokens"] for t in trained) / count if trained else None,
        )


def _loss_point(point: dict[str, Any]) -> LossPoint:
    return LossPoint(step=point["step"], loss=point["loss"], validation_loss=point.get("validation_loss"))


def _measure(value: dict[str, Any]) -> Measure:
    # Summaries of earlier versions have no `kind`.
    return Measure.model_validate({name: value[name] for name in Measure.model_fields if name in value})


def _measures(values: dict[str, Any]) -> dict[str, Measure]:
    return {name: _measure(value) for name, value in values.items()}


def run(context: StageContext) -> None:
    """Roles: `data`, and `score-…`, `predict-…`, `train-…` or `tune-…` of every contender and seed."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, ReportSettings)
    data = context.input("data")
    card = json.loads(data.path("card.json").read_bytes())
    rows = read_rows(data.path("test.jsonl"))
    answers = {contender.name: _Answers(context, contender) for contender in settings.contenders}
    context.heartbeat(0, 1, "report")
    primary = next(iter(answers.values())).summaries[0]["primary"]
    baseline = answers[settings.baseline]
    kind = _measure(baseline.summaries[0]["measures"][primary]).kind
    results = Results(
        experiment=settings.experiment,
        task=settings.task,
        primary=primary,
        baseline=settings.baseline,
        data=_data_result(settings.source, card, baseline.summaries[0]["valid_gold"]),
        contenders=[one.result() for one in answers.values()],
        comparisons=[
            compare(a, answers[a].scores, b, answers[b].scores, primary, kind)
            for a, b in _pairs(list(answers), settings.baseline)
        ],
        samples=_samples(rows, answers, primary, kind),
        caveats=_caveats(_facts(context, settings), settings, answers),
    )
    (context.out / "results.json").write_text(results.model_dump_json(indent=2) + "\n", encoding="utf-8")
    context.heartbeat(1, 1, "report")


def _pairs(names: list[str], baseline: str) -> list[tuple[str, str]]:
    """The pairs to compare: every contender with the baseline, then the others with each other."""
    others = [name for name in names if name != baseline]
    return [*((name, baseline) for name in others), *combinations(others, 2)]


def _data_result(source: str, card: dict[str, Any], valid_gold: int) -> DataResult:
    faults = [
        f"{fault['rows']} of {fault['of']} {fault['part']} rows: {fault['what']}."
        for fault in card.get("faults", [])
    ]
    leaks = [
        f"{shared['question']} questions and {shared['row']} whole rows stand on both sides of '{pair}'."
        for pair, shared in card["leakage"].items()
        if shared["question"] or shared["row"]
    ]
    return DataResult(
        source=source,
        rows={part: described["rows"] for part, described in card["parts"].items()},
        digests={part: described["sha256"] for part, described in card["parts"].items()},
        valid_gold=valid_gold,
        leakage=card["leakage"],
        known_faults=[*faults, *leaks, *(f"{note}." for note in card["notes"])],
    )


def _samples(rows: list[Row], answers: dict[str, _Answers], primary: str, kind: MeasureKind) -> list[Sample]:
    """The questions whose answers differ most visibly: those that contenders disagree on come first."""

    def values(index: int) -> list[float | None]:
        return [value_of(one.scores[0][index], primary, kind) for one in answers.values()]

    order = sorted(range(len(rows)), key=lambda index: (len(set(values(index))) == 1, index))
    samples = []
    for index in order[:SAMPLES_SHOWN]:
        given = [
            _sample_answer(name, one.scores[0][index], value, kind)
            for (name, one), value in zip(answers.items(), values(index), strict=True)
        ]
        row = rows[index]
        samples.append(Sample(id=row.id, question=row.messages[-2]["content"], gold=row.gold, answers=given))
    return samples


def _sample_answer(
    contender: str, scored: dict[str, Any], value: float | None, kind: MeasureKind
) -> SampleAnswer:
    correct = bool(value) if kind == "share" else None
    return SampleAnswer(
        contender=contender,
        answer=scored["answer"],
        correct=correct,
        reason=None if correct else scored["reason"],
        value=None if kind == "share" else value,
    )


def _facts(context: StageContext, settings: ReportSettings) -> TaskFacts:
    """The facts of the run's task; of a user's own, from the stage's inputs."""
    name = f"{INPUT_PREFIX}{FACTS_FILE}"
    if name in context.stage.inputs:
        return parse_facts(context.outside(name).read_text(encoding="utf-8"), name)
    return built_in(settings.task)


def _caveats(facts: TaskFacts, settings: ReportSettings, answers: dict[str, _Answers]) -> list[str]:
    caveats = []
    source = facts.sources.get(settings.source)
    if source is not None and source.caveat is not None:
        caveats.append(source.caveat)
    for contender in settings.contenders:
        if contender.rehearsed_by is not None:
            caveats.append(
                f"'{contender.name}' is a rehearsal: {contender.rehearsed_by} was trained and asked in place of "
                f"{contender.model}, by a server of our own. It shows that the hosted side works and what it would "
                f"have cost, not how well {contender.model} answers."
            )
    if any(
        (contender.rehearsed_by or contender.model).startswith("random") for contender in settings.contenders
    ):
        caveats.append("A contender is a random model for testing the machinery: its accuracy means nothing.")
    if all(len(one.seeds) == 1 for one in answers.values()):
        caveats.append(
            "Every tuned model was trained once: intervals cover the questions asked, not chance in training."
        )
    return caveats
