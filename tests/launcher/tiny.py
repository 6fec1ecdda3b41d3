"""The smallest experiment with its plan and results, made without files, network or `jobs`."""

from __future__ import annotations

from typing import Any

from launcher.spec.experiment import Experiment
from launcher.spec.loading import validate
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.results import (
    Comparison,
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
from launcher.spec.stages import RandomModel
from launcher.store import DirectoryStore

LOCK = Lock(models={"random-llama": LockedModel(source=RandomModel())})
UNTUNED: dict[str, Any] = {"name": "untuned", "kind": "prompted", "model": "random-llama"}
LORA: dict[str, Any] = {"name": "lora", "kind": "lora", "model": "random-llama"}
HOSTED: dict[str, Any] = {"name": "hosted", "kind": "hosted", "model": "gpt-3.5-turbo-0613"}


def document(**changes: Any) -> dict[str, Any]:
    """A valid document with `changes` at its top level."""
    return {"name": "tiny", "task": "sql", "contenders": [dict(UNTUNED), dict(LORA)], **changes}


def experiment(**changes: Any) -> Experiment:
    return validate(document(**changes), where="test")


def make_plan(**changes: Any) -> Plan:
    """prepare; fetch; predict and score untuned; train, predict and score lora; report."""
    return plan(experiment(**changes), LOCK)


def make_results(text: str = "SELECT 1") -> Results:
    """Results as a report stage writes them; `text` is every string that comes from data or a model."""

    def measure(correct: int) -> Measure:
        return Measure(value=correct / 8, low=0.1, high=0.9, correct=correct, of=8)

    def contender(given: dict[str, Any], correct: int) -> ContenderResult:
        seeds: list[int | None] = [1] if given["kind"] == "lora" else [None]
        curve = [LossPoint(step=step, loss=3.0 / step, validation_loss=None) for step in (1, 2)]
        return ContenderResult(
            name=given["name"],
            kind=given["kind"],
            model=given["model"],
            measures={"strict": measure(correct)},
            seeds=[
                SeedResult(seed=seed, measures={"strict": measure(correct)}, curve=curve) for seed in seeds
            ],
            tokens=Tokens(prompt=800.0, answer=80.0),
            breakdowns={"database": {text: measure(correct), "pets": measure(1)}},
            reasons={text: 8 - correct},
        )

    answers = [
        SampleAnswer(contender=name, answer=text, correct=False, reason=text) for name in ("untuned", "lora")
    ]
    return Results(
        experiment="tiny",
        task="sql",
        primary="strict",
        baseline="untuned",
        data=DataResult(
            source="sample",
            rows={"test": 8},
            digests={},
            valid_gold=8,
            leakage={},
            known_faults=["a known fault"],
        ),
        contenders=[contender(UNTUNED, 2), contender(LORA, 6)],
        comparisons=[
            Comparison(
                a="lora",
                b="untuned",
                measure="strict",
                rows=8,
                difference=0.5,
                low=0.1,
                high=0.8,
                only_a=4,
                only_b=0,
                p_value=0.125,
            )
        ],
        samples=[Sample(id="1", question=text, gold=text, answers=answers)],
        caveats=["one seed"],
    )


def commit_everything(plan: Plan, store: DirectoryStore, text: str = "SELECT 1") -> None:
    """Commit an artifact for every stage of `plan`; only the attempt is left to close."""
    for stage in plan.stages:
        directory = store.root / f"to-commit-{stage.name}"
        directory.mkdir()
        if stage.kind == "report":
            (directory / "results.json").write_text(make_results(text).model_dump_json(), encoding="utf-8")
        meta = {"seconds": 2.0, "run": plan.run_id, "attempt": 1}
        store.commit(f"stages/{stage.key}", directory, meta)
