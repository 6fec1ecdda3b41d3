"""The plan: an experiment resolved to the last detail and frozen, with its stage keys and run id.

A stage's key hashes its kind, that kind's version, its settings, its outside inputs and the keys of its
upstream stages; the run id hashes all stage keys. `planner` makes plans, `parse` reads and checks them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, get_args

from pydantic import ValidationError

from launcher.outcome import Failure, Reason
from launcher.spec.names import RelativePath, RunId, Sha256, StageName
from launcher.spec.stages import (
    SETTINGS,
    FetchSettings,
    HostedPredictSettings,
    Settings,
    StageKind,
    TuneSettings,
)
from launcher.spec.strict import Strict, describe
from launcher.system.json_text import parse_json

FORMAT = 1


class Resources(Strict):
    """What a stage requests of its machine. Placement: never hashed."""

    device: str = "cpu"
    gpus: int = 0
    nodes: int = 1
    cpus: int = 1
    memory_gib: int = 4


class Stage(Strict):
    """One batch job. `needs` maps a role ("data", "model", "adapter", …) to the stage that fills it.

    `contender`, `seed` and `evaluation` say what the stage is for; they are not hashed (settings and upstream
    keys hold what can change its output). A fetch that contenders share has the first one's name.
    """

    name: StageName
    kind: StageKind
    version: int
    key: Sha256
    needs: dict[str, StageName]
    inputs: dict[RelativePath, Sha256]  # path inside the named data -> sha256
    settings: dict[str, Any]
    resources: Resources = Resources()
    contender: str | None = None
    seed: int | None = None
    #: None: the experiment's only one.
    evaluation: str | None = None

    def typed_settings(self) -> Settings:
        """The settings as their kind's model. Raises Failure(BAD_EXPERIMENT) if they do not validate."""
        try:
            settings: Settings = SETTINGS[self.kind].validate_json(json.dumps(self.settings))
            return settings
        except ValidationError as error:
            raise Failure(
                Reason.BAD_EXPERIMENT,
                "the plan's settings are not valid",
                where=self.name,
                problems=tuple(describe(error)),
            ) from None


def stage_name(
    kind: StageKind, contender: str | None = None, seed: int | None = None, evaluation: str | None = None
) -> str:
    """The name of a stage: `train-lora-s1`. Names are composed here and never parsed."""
    parts = (kind, contender, None if seed is None else f"s{seed}", evaluation)
    return "-".join(part for part in parts if part)


def needs_torch(stage: Stage) -> bool:
    """Whether a stage runs a model or converts its weights, and so needs the trainer's image."""
    settings = stage.typed_settings()
    if isinstance(settings, TuneSettings | HostedPredictSettings):
        return settings.rehearsal is not None
    if isinstance(settings, FetchSettings):
        return settings.source.kind in ("package", "directory", "random")
    return stage.kind in ("train", "predict")


class Plan(Strict):
    """An experiment resolved to the last detail. Stages are in topological order."""

    format: Literal[1] = 1
    run_id: RunId
    experiment: dict[str, Any]
    lock: dict[str, Any]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise Failure(Reason.NOT_FOUND, f"the plan has no stage '{name}'; it has {known}", where=self.run_id)

    def to_bytes(self) -> bytes:
        """Canonical JSON with a newline at the end, as it is mounted and compared."""
        return canonical(self.model_dump(mode="json")) + b"\n"


def parse(data: bytes | str, where: str) -> Plan:
    """A Plan from its bytes, also from those that an older launcher wrote.

    Raises Failure if it is malformed or newer, or if its keys or names do not match its content.
    """
    try:
        document = parse_json(data)
        if (
            isinstance(document, dict)
            and isinstance(document.get("format"), int)
            and document["format"] > FORMAT
        ):
            raise Failure(
                Reason.UNSUPPORTED,
                f"plan format {document['format']} is newer than this launcher's {FORMAT}",
                where=where,
                next_step="pip install --upgrade tuneyard",
            )
        plan = _with_subjects(Plan.model_validate_json(data), where)
    except ValidationError as error:
        raise Failure(
            Reason.BAD_EXPERIMENT, "not a plan", where=where, problems=tuple(describe(error))
        ) from None
    except (ValueError, RecursionError):
        raise Failure(Reason.BAD_EXPERIMENT, "not JSON", where=where) from None
    _check_keys(plan, where)
    return plan


def _check_keys(plan: Plan, where: str) -> None:
    """Raises Failure(BAD_EXPERIMENT) if a key, a name or the run id does not match the content of the plan."""
    keys: dict[str, str] = {}
    for stage in plan.stages:
        try:
            expected = stage_key(
                stage.kind,
                stage.version,
                stage.settings,
                stage.inputs,
                {role: keys[name] for role, name in stage.needs.items()},
            )
        except KeyError as error:
            raise Failure(
                Reason.BAD_EXPERIMENT,
                f"stage {stage.name} needs {error}, which does not precede it",
                where=where,
            ) from None
        if expected != stage.key:
            raise Failure(
                Reason.BAD_EXPERIMENT,
                f"the key of stage {stage.name} does not match its content",
                where=where,
            )
        if stage.contender and stage.name != stage_name(
            stage.kind, stage.contender, stage.seed, stage.evaluation
        ):
            raise Failure(
                Reason.BAD_EXPERIMENT,
                f"the name of stage {stage.name} does not match its contender, seed and evaluation",
                where=where,
            )
        if stage.name in keys:
            raise Failure(Reason.BAD_EXPERIMENT, f"two stages are named {stage.name}", where=where)
        keys[stage.name] = stage.key
    if plan.run_id != run_id(str(plan.experiment.get("name")), plan.stages):
        raise Failure(Reason.BAD_EXPERIMENT, "the run id does not match the stages", where=where)


def _with_subjects(plan: Plan, where: str) -> Plan:
    """The plan with contender and seed in every stage: plans of older launchers have only names.

    Raises Failure(BAD_EXPERIMENT) if the experiment of such a plan has no readable contenders or seeds.
    """
    if any(stage.contender for stage in plan.stages):
        return plan
    try:
        seeds = (None, *plan.experiment.get("seeds", ()))
        names = [contender["name"] for contender in plan.experiment.get("contenders", ())]
        subjects = {
            (kind, stage_name(kind, name, seed)): {"contender": name, "seed": seed}
            for kind in get_args(StageKind)
            for seed in reversed(seeds)
            for name in names
        }
    except (KeyError, TypeError):
        raise Failure(
            Reason.BAD_EXPERIMENT, "the plan's contenders or seeds are malformed", where=where
        ) from None
    stages = (stage.model_copy(update=subjects.get((stage.kind, stage.name), {})) for stage in plan.stages)
    return plan.model_copy(update={"stages": tuple(stages)})


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def stage_key(
    kind: str, version: int, settings: dict[str, Any], inputs: dict[str, str], upstream: dict[str, str]
) -> str:
    """64 hex digits that change if and only if the stage's output may."""
    content = {"kind": kind, "version": version, "settings": settings, "inputs": inputs, "upstream": upstream}
    return hashlib.sha256(canonical(content)).hexdigest()


def run_id(experiment_name: str, stages: tuple[Stage, ...]) -> str:
    """The experiment's name and a hash over all stage keys, in any order."""
    keys = hashlib.sha256(canonical(sorted(stage.key for stage in stages))).hexdigest()
    return f"{experiment_name}-{keys[:8]}"


__all__ = [
    "Plan",
    "Resources",
    "Stage",
    "canonical",
    "needs_torch",
    "parse",
    "run_id",
    "stage_key",
    "stage_name",
]
