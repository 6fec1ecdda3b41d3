"""Experiment and lock -> Plan. Pure: the same bytes on any machine and any day.

Reads no file, no clock and no network; the lock holds the digests of all names.
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
from launcher.spec.plan import Plan, Resources, Stage, run_id, stage_key, stage_name
from launcher.spec.providers import DEFAULT_PROVIDER
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
from launcher.spec.tasks import FACTS_FILE, INPUT_PREFIX, name_of


class _Builder:
    """Collects stages in order. Fetches with equal keys are one stage, which contenders share."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def add(
        self,
        kind: StageKind,
        settings: Settings,
        *,
        contender: str | None = None,
        seed: int | None = None,
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
            name=stage_name(kind, contender, seed),
            kind=kind,
            version=VERSIONS[kind],
            key=key,
            needs={role: s.name for role, s in needs.items()},
            inputs=inputs or {},
            settings=plain,
            resources=resources or Resources(),
            contender=contender,
            seed=seed,
        )
        self.stages.append(stage)
        return stage


def plan(experiment: Experiment, lock: Lock) -> Plan:
    """The plan of `experiment` with the digests of `lock`. Raises Failure(MISSING_INPUT) if a digest is missing."""
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
        ReportSettings(
            experiment=experiment.name,
            task=name_of(experiment.task),
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
        # Data, not code: the report reads the task's facts.
        inputs={
            name: digest
            for name, digest in _task_inputs(lock).items()
            if name == f"{INPUT_PREFIX}{FACTS_FILE}"
        },
    )
    stages = tuple(builder.stages)
    return Plan(
        run_id=run_id(experiment.name, stages),
        # Without what is never hashed: equal runs have equal plans.
        experiment=experiment.model_dump(
            mode="json",
            exclude={"budget_usd", "description"} | (set() if experiment.settings else {"settings"}),
        ),
        lock=lock.model_dump(mode="json"),
        stages=stages,
    )


def _prepare(builder: _Builder, experiment: Experiment, lock: Lock) -> Stage:
    needs: dict[str, Stage] = {}
    if lock.data_source is not None:
        needs["source"] = builder.add("fetch", FetchSettings(source=lock.data_source))
    return builder.add(
        "prepare",
        PrepareSettings(task=name_of(experiment.task), settings=experiment.settings, data=experiment.data),
        needs=needs,
        inputs={**lock.data_files, **_task_inputs(lock)},
    )


def _task_inputs(lock: Lock) -> dict[str, str]:
    """The files of a task of the user's own, as inputs of the stages that run its code."""
    return {f"{INPUT_PREFIX}{name}": sha256 for name, sha256 in lock.task_files.items()}


def _open_contender(
    builder: _Builder,
    experiment: Experiment,
    contender: LoraContender | PromptedContender,
    prepare: Stage,
    lock: Lock,
) -> dict[str, Stage]:
    """Add the stages of an open contender (fetch, train, predict, score); returns role -> stage for the report."""
    locked = lock.model(contender.model)
    fetch = builder.add(
        "fetch", FetchSettings(source=locked.source), contender=contender.name, inputs=locked.files
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
        needs = {"data": prepare, "model": fetch}
        if isinstance(contender, LoraContender) and seed is not None:
            train = builder.add(
                "train",
                _train_settings(experiment, contender, seed),
                contender=contender.name,
                seed=seed,
                needs=needs,
                resources=resources,
            )
            roles[train.name] = train
            needs = {**needs, "adapter": train}
        predict = builder.add(
            "predict",
            PredictSettings(
                task=name_of(experiment.task),
                prompt=contender.prompt,
                generation=contender.generation,
                threads=hardware.threads,
                device=hardware.device,
            ),
            contender=contender.name,
            seed=seed,
            needs=needs,
            # One node: a replica fits on every node that training fits on.
            resources=resources.model_copy(update={"nodes": 1, "gpus": min(resources.gpus, 1)}),
        )
        roles.update(_score(builder, experiment, prepare, predict, lock))
    return roles


def _hosted_contender(
    builder: _Builder,
    experiment: Experiment,
    contender: HostedContender | HostedPromptedContender,
    prepare: Stage,
    lock: Lock,
) -> dict[str, Stage]:
    """Add the stages of a hosted contender (stand-in, tune, predict, score); returns role -> stage for the report."""
    rehearsed = contender.rehearsed
    further = None if rehearsed or contender.provider == DEFAULT_PROVIDER else contender.provider
    needs, resources = {"data": prepare}, Resources(device="hosted")
    if rehearsed is not None:
        locked = lock.model(rehearsed.stand_in)
        needs["model"] = builder.add(
            "fetch", FetchSettings(source=locked.source), contender=contender.name, inputs=locked.files
        )
        resources = Resources(device="cpu", cpus=rehearsed.threads, memory_gib=rehearsed.memory_gib)
    roles: dict[str, Stage] = {}
    for seed in experiment.seeds if isinstance(contender, HostedContender) else (None,):
        answering = dict(needs)
        if isinstance(contender, HostedContender) and seed is not None:
            settings = TuneSettings(
                task=name_of(experiment.task),
                model=contender.model,
                provider=further,
                base_url=contender.base_url,
                rehearsal=rehearsed,
                epochs=contender.epochs,
                batch_rows=contender.batch_rows,
                learning_rate_multiplier=contender.learning_rate_multiplier,
                seed=seed,
            )
            tune = builder.add(
                "tune",
                settings,
                contender=contender.name,
                seed=seed,
                needs=needs,
                resources=resources,
            )
            roles[tune.name] = answering["tuned"] = tune
        predict = builder.add(
            "predict",
            HostedPredictSettings(
                task=name_of(experiment.task),
                model=contender.model,
                provider=further,
                base_url=contender.base_url,
                rehearsal=rehearsed,
                max_new_tokens=contender.max_new_tokens,
                batch=contender.batched,
                shots=contender.shots if isinstance(contender, HostedPromptedContender) else 0,
            ),
            contender=contender.name,
            seed=seed,
            needs=answering,
            resources=resources,
        )
        roles.update(_score(builder, experiment, prepare, predict, lock))
    return roles


def stand_in(contender: Contender) -> str | None:
    """The open model that answers for a rehearsed contender; None for other contenders."""
    rehearsed = contender.rehearsed if isinstance(contender, HostedModel) else None
    return rehearsed.stand_in if rehearsed else None


def _score(
    builder: _Builder, experiment: Experiment, prepare: Stage, predict: Stage, lock: Lock
) -> dict[str, Stage]:
    score = builder.add(
        "score",
        ScoreSettings(
            task=name_of(experiment.task), settings=experiment.settings, scorers=experiment.scorers
        ),
        contender=predict.contender,
        seed=predict.seed,
        needs={"data": prepare, "predictions": predict},
        inputs={**lock.scorer_files, **_task_inputs(lock)},
    )
    return {predict.name: predict, score.name: score}


def _train_settings(experiment: Experiment, contender: LoraContender, seed: int) -> TrainSettings:
    hardware = contender.hardware
    return TrainSettings(
        task=name_of(experiment.task),
        prompt=contender.prompt,
        lora=contender.lora,
        training=contender.training,
        seed=seed,
        processes=hardware.count * hardware.nodes,
        threads=hardware.threads,
        device=hardware.device,
    )
