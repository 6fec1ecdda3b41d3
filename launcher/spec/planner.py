"""Experiment -> Plan: pure, the same bytes on any machine and any day.

Nothing here reads a file, opens a connection or reads the clock; names were resolved to digests before
(see `lock`).
"""

from __future__ import annotations

from launcher.spec.contenders import (
    Contender,
    HostedContender,
    HostedModel,
    HostedPromptedContender,
    LoraContender,
    PromptedContender,
)
from launcher.spec.experiment import Experiment
from launcher.spec.lock import Lock
from launcher.spec.plan import Plan, Resources, Stage, run_id, stage_key
from launcher.spec.stages import (
    VERSIONS,
    FetchSettings,
    HostedPredictSettings,
    PredictSettings,
    PrepareSettings,
    ReportContender,
    ReportSettings,
    ScoreSettings,
    Settings,
    StageKind,
    TrainSettings,
    TuneSettings,
)


class _Builder:
    """Collects stages in order; a stage whose key is there already is shared, not added."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def add(
        self,
        name: str,
        kind: StageKind,
        settings: Settings,
        *,
        needs: dict[str, Stage] | None = None,
        inputs: dict[str, str] | None = None,
        resources: Resources | None = None,
    ) -> Stage:
        needs = needs or {}
        plain = settings.model_dump(mode="json")
        key = stage_key(kind, VERSIONS[kind], plain, inputs or {}, {role: s.key for role, s in needs.items()})
        for stage in self.stages:
            if stage.key == key and kind == "fetch":
                return stage
        stage = Stage(
            name=name,
            kind=kind,
            version=VERSIONS[kind],
            key=key,
            needs={role: s.name for role, s in needs.items()},
            inputs=inputs or {},
            settings=plain,
            resources=resources or Resources(),
        )
        self.stages.append(stage)
        return stage


def plan(experiment: Experiment, lock: Lock) -> Plan:
    """Resolve `experiment` with the digests of `lock`. Pure.

    Raises Failure(MISSING_INPUT) where the lock lacks a digest.
    """
    builder = _Builder()
    prepare = _prepare(builder, experiment, lock)
    scored: dict[str, Stage] = {}
    for contender in experiment.contenders:
        if isinstance(contender, HostedModel):
            scored.update(_hosted_contender(builder, experiment, contender, prepare, lock))
            continue
        scored.update(_open_contender(builder, experiment, contender, prepare, lock))
    baseline = experiment.baseline or experiment.contenders[0].name
    builder.add(
        "report",
        "report",
        ReportSettings(
            experiment=experiment.name,
            task=experiment.task,
            source=experiment.data.source,
            baseline=baseline,
            contenders=tuple(
                ReportContender(
                    name=contender.name,
                    kind=contender.kind,
                    model=contender.model,
                    seeds=() if contender.kind == "prompted" else experiment.seeds,
                    rehearsed_by=stand_in(contender),
                )
                for contender in experiment.contenders
            ),
        ),
        needs={"data": prepare, **scored},
    )
    stages = tuple(builder.stages)
    return Plan(
        run_id=run_id(experiment.name, stages),
        # What is never hashed must not be in these bytes either: the same run has the same plan.
        experiment=experiment.model_dump(mode="json", exclude={"budget_usd", "description"}),
        lock=lock.model_dump(mode="json"),
        stages=stages,
    )


def _prepare(builder: _Builder, experiment: Experiment, lock: Lock) -> Stage:
    needs: dict[str, Stage] = {}
    if lock.data_source is not None:
        needs["source"] = builder.add("fetch", "fetch", FetchSettings(source=lock.data_source))
    return builder.add(
        "prepare",
        "prepare",
        PrepareSettings(task=experiment.task, data=experiment.data),
        needs=needs,
        inputs=lock.data_files,
    )


def _open_contender(
    builder: _Builder,
    experiment: Experiment,
    contender: LoraContender | PromptedContender,
    prepare: Stage,
    lock: Lock,
) -> dict[str, Stage]:
    """Add fetch, train, predict and score of one open contender; returns role -> stage for the report."""
    locked = lock.model(contender.model)
    fetch = builder.add(
        f"fetch-{contender.name}", "fetch", FetchSettings(source=locked.source), inputs=locked.files
    )
    hardware = contender.hardware
    resources = Resources(
        device=hardware.device,
        gpus=0 if hardware.device == "cpu" else hardware.count,
        nodes=hardware.nodes,
        cpus=hardware.threads,
        memory_gib=hardware.memory_gib,
    )
    roles: dict[str, Stage] = {}
    for seed in experiment.seeds if isinstance(contender, LoraContender) else (None,):
        suffix = contender.name if seed is None else f"{contender.name}-s{seed}"
        needs = {"data": prepare, "model": fetch}
        if isinstance(contender, LoraContender) and seed is not None:
            train = builder.add(
                f"train-{suffix}",
                "train",
                _train_settings(experiment, contender, seed),
                needs=needs,
                resources=resources,
            )
            roles[f"train-{suffix}"] = train
            needs = {**needs, "adapter": train}
        predict = builder.add(
            f"predict-{suffix}",
            "predict",
            PredictSettings(
                task=experiment.task,
                prompt=contender.prompt,
                generation=contender.generation,
                threads=hardware.threads,
                device=hardware.device,
            ),
            needs=needs,
            # Answering needs no second node: a replica fits where training fitted.
            resources=resources.model_copy(update={"nodes": 1, "gpus": min(resources.gpus, 1)}),
        )
        roles.update(_score(builder, experiment, suffix, prepare, predict, lock))
    return roles


def _hosted_contender(
    builder: _Builder,
    experiment: Experiment,
    contender: HostedContender | HostedPromptedContender,
    prepare: Stage,
    lock: Lock,
) -> dict[str, Stage]:
    """Add fetch (of a stand-in), tune, predict and score of one hosted contender; role -> stage for the report."""
    rehearsed = contender.rehearsed
    needs, resources = {"data": prepare}, Resources(device="hosted")
    if rehearsed is not None:
        locked = lock.model(rehearsed.stand_in)
        needs["model"] = builder.add(
            f"fetch-{contender.name}", "fetch", FetchSettings(source=locked.source), inputs=locked.files
        )
        resources = Resources(device="cpu", cpus=rehearsed.threads, memory_gib=rehearsed.memory_gib)
    roles: dict[str, Stage] = {}
    for seed in experiment.seeds if isinstance(contender, HostedContender) else (None,):
        suffix = contender.name if seed is None else f"{contender.name}-s{seed}"
        answering = dict(needs)
        if isinstance(contender, HostedContender) and seed is not None:
            settings = TuneSettings(
                task=experiment.task,
                model=contender.model,
                base_url=contender.base_url,
                rehearsal=rehearsed,
                epochs=contender.epochs,
                batch_rows=contender.batch_rows,
                learning_rate_multiplier=contender.learning_rate_multiplier,
                seed=seed,
            )
            tune = builder.add(f"tune-{suffix}", "tune", settings, needs=needs, resources=resources)
            roles[f"tune-{suffix}"] = answering["tuned"] = tune
        predict = builder.add(
            f"predict-{suffix}",
            "predict",
            HostedPredictSettings(
                task=experiment.task,
                model=contender.model,
                base_url=contender.base_url,
                rehearsal=rehearsed,
                max_new_tokens=contender.max_new_tokens,
                batch=contender.batched,
                shots=contender.shots if isinstance(contender, HostedPromptedContender) else 0,
            ),
            needs=answering,
            resources=resources,
        )
        roles.update(_score(builder, experiment, suffix, prepare, predict, lock))
    return roles


def stand_in(contender: Contender) -> str | None:
    """The open model that a rehearsed contender's answers come from; None for everybody else."""
    rehearsed = contender.rehearsed if isinstance(contender, HostedModel) else None
    return rehearsed.stand_in if rehearsed else None


def _score(
    builder: _Builder, experiment: Experiment, suffix: str, prepare: Stage, predict: Stage, lock: Lock
) -> dict[str, Stage]:
    score = builder.add(
        f"score-{suffix}",
        "score",
        ScoreSettings(task=experiment.task, scorers=experiment.scorers),
        needs={"data": prepare, "predictions": predict},
        inputs=lock.scorer_files,
    )
    return {f"predict-{suffix}": predict, f"score-{suffix}": score}


def _train_settings(experiment: Experiment, contender: LoraContender, seed: int) -> TrainSettings:
    hardware = contender.hardware
    return TrainSettings(
        task=experiment.task,
        prompt=contender.prompt,
        lora=contender.lora,
        training=contender.training,
        seed=seed,
        processes=hardware.count * hardware.nodes,
        threads=hardware.threads,
        device=hardware.device,
    )
