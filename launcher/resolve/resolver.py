"""Resolves names before the plan: hub ids to revisions, directories and files to sha256.

Making a plan touches the outside only here: files that the user names, and the model hub's API for a hub id
without a revision.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from launcher.outcome import Failure, Reason
from launcher.resolve.data import choose_source, data_of, with_locked_source
from launcher.resolve.hub import commit_of
from launcher.resolve.resolution import RELOCK, Resolution, check_locked
from launcher.resolve.task_folder import folder_digest, folder_files
from launcher.spec import catalog
from launcher.spec.contenders import Contender, HostedModel
from launcher.spec.experiment import Experiment
from launcher.spec.lock import FORMAT, Lock, LockedModel
from launcher.spec.planner import stand_in
from launcher.spec.stages import DirectoryModel, HubData, HubModel, ModelSource
from launcher.spec.strict import describe
from launcher.spec.tasks import SCORER_PREFIX, TaskFacts, facts_of, is_folder, label
from launcher.system.json_text import parse_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_SOURCE: TypeAdapter[ModelSource] = TypeAdapter(ModelSource)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py")


def resolve(
    experiment: Experiment, *, data_directory: Path | None = None, locked: Lock | None = None
) -> Resolution:
    """Resolve every outside name of `experiment`; with `locked`, only to what the lock has.

    A name that the lock lacks is an error. A source that generates its rows gives way to the lock's data,
    as it does to a directory's (`choose_source`).
    Raises Failure(NO_SUCH_MODEL | MISSING_INPUT | NETWORK | BAD_DATA | BAD_EXPERIMENT) with every problem.
    """
    if locked is not None and data_directory is None:
        experiment = with_locked_source(experiment, locked)
    facts = facts_of(experiment.task)
    if facts is None:
        raise Failure(
            Reason.MISSING_INPUT,
            f"task '{experiment.task}' is a folder that went by its content in another plan",
            next_step="name the folder: task: ./FOLDER",
        )
    resolution = Resolution(experiment, Lock())
    problems: list[Failure] = []
    models = _models(experiment, resolution, locked, problems)
    data_files: dict[str, str] = {}
    data_source: HubData | None = None
    source = experiment.data.source
    try:
        data_files, data_source = data_of(source, facts.sources[source], data_directory, resolution, locked)
    except Failure as failure:
        problems.append(failure)
    scorer_files: dict[str, str] = {}
    for scorer in experiment.scorers:
        try:
            found = _scorer(scorer, facts, resolution)
            if locked is not None:
                check_locked(found, {n: d for n, d in locked.scorer_files.items() if n in found}, scorer)
            scorer_files.update(found)
        except Failure as failure:
            problems.append(failure)
    task, task_files = experiment.task, dict[str, str]()
    try:
        task, task_files = _task(experiment.task, facts, resolution, locked)
    except Failure as failure:
        problems.append(failure)
    if problems:
        raise _together(problems)
    contenders = tuple(_relabelled(contender, models) for contender in experiment.contenders)
    settings = facts.resolved_settings(experiment.settings)
    resolution.experiment = experiment.model_copy(
        update={"contenders": contenders, "task": task, "settings": settings}
    )
    resolution.lock = Lock(
        models={_label(name, model): model for name, model in models.items()},
        data_source=data_source,
        data_files=data_files,
        scorer_files=scorer_files,
        task_files=task_files,
    )
    return resolution


def _models(
    experiment: Experiment, resolution: Resolution, locked: Lock | None, problems: list[Failure]
) -> dict[str, LockedModel]:
    """Every model that the contenders name; what fails is added to `problems`."""
    models: dict[str, LockedModel] = {}
    for name in dict.fromkeys(filter(None, map(_weights, experiment.contenders))):
        try:
            models[name] = _model(name, resolution, locked)
        except Failure as failure:
            problems.append(failure)
    return models


def _task(
    task: str, facts: TaskFacts, resolution: Resolution, locked: Lock | None
) -> tuple[str, dict[str, str]]:
    """A built-in task's name and no files; of a folder its label and its files."""
    if not is_folder(task):
        return task, {}
    files = folder_files(Path(task).expanduser(), resolution)
    if locked is not None:
        check_locked(files, locked.task_files, f"task {task}")
    return label(facts.name, folder_digest(files)), files


def read_lock(path: Path) -> Lock:
    """A lock file. Raises Failure if it cannot be read or is not a lock."""
    try:
        document = parse_json(path.read_bytes())
        if (
            isinstance(document, dict)
            and isinstance(document.get("format"), int)
            and document["format"] > FORMAT
        ):
            raise Failure(
                Reason.UNSUPPORTED,
                f"lock format {document['format']} is newer than this launcher's {FORMAT}",
                where=str(path),
                next_step="pip install --upgrade tuneyard",
            )
        return Lock.model_validate_json(json.dumps(document))
    except OSError as error:
        raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(path)) from None
    except ValidationError as error:
        raise Failure(
            Reason.BAD_EXPERIMENT, "not a lock", where=str(path), problems=tuple(describe(error))
        ) from None
    except (ValueError, RecursionError):
        raise Failure(Reason.BAD_EXPERIMENT, "not JSON", where=str(path)) from None


def _together(problems: list[Failure]) -> Failure:
    if len(problems) == 1:
        return problems[0]
    lines = tuple(
        line for failure in problems for line in (f"{failure.where}: {failure.what}".removeprefix(": "),)
    )
    return Failure(
        problems[0].reason, f"{len(problems)} problems", problems=lines, next_step=problems[0].next_step
    )


def _label(name: str, locked: LockedModel | None) -> str:
    if locked is None or not isinstance(locked.source, DirectoryModel):
        return name
    content = json.dumps(locked.files, sort_keys=True).encode()
    return f"directory-{hashlib.sha256(content).hexdigest()[:12]}"


def _weights(contender: Contender) -> str | None:
    """The name of the model whose weights a contender needs here."""
    return stand_in(contender) if isinstance(contender, HostedModel) else contender.model


def _relabelled(contender: Contender, models: dict[str, LockedModel]) -> Contender:
    """The contender with its model's label in place of a path of this machine."""
    name = _weights(contender)
    if name is None:
        return contender
    label = _label(name, models.get(name))
    if isinstance(contender, HostedModel):
        assert contender.rehearsed is not None
        rehearsal = contender.rehearsed.model_copy(update={"stand_in": label})
        return contender.model_copy(update={"rehearsal": rehearsal})
    return contender.model_copy(update={"model": label})


def _model(name: str, resolution: Resolution, locked: Lock | None) -> LockedModel:
    if locked is None:
        return _unlocked_model(name, resolution)
    if name in locked.models:
        return locked.models[name]
    directory = Path(name).expanduser()
    if name and name not in catalog.models() and directory.is_dir():
        # A directory goes by its content.
        found = _unlocked_model(name, resolution)
        if _label(name, found) in locked.models:
            return found
    raise Failure(
        Reason.MISSING_INPUT,
        f"not in the lock, which has {', '.join(locked.models) or 'none'}",
        where=f"model '{name}'",
        next_step=RELOCK,
    )


def _unlocked_model(name: str, resolution: Resolution) -> LockedModel:
    known = catalog.models().get(name)
    if known is not None:
        source = dict(known.source)
        if source["kind"] == "hub" and "revision" not in source:
            source["revision"] = commit_of(source["repository"], "main", "models")
        return LockedModel(source=_SOURCE.validate_python(source))
    directory = Path(name).expanduser()
    if name and directory.is_dir():
        return LockedModel(source=DirectoryModel(), files=_model_files(directory, resolution))
    if name.startswith((".", "/", "~")):
        raise Failure(Reason.NO_SUCH_MODEL, "no such directory", where=f"model '{name}'")
    if _HUB_ID.fullmatch(name):
        repository, _, revision = name.partition("@")
        return LockedModel(
            source=HubModel(
                repository=repository, revision=commit_of(repository, revision or "main", "models")
            )
        )
    raise Failure(
        Reason.NO_SUCH_MODEL,
        "not in the catalogue, no directory and no hub id (owner/name)",
        where=f"model '{name}'",
        next_step=f"one of {', '.join(catalog.models())}, a hub id or a local directory",
    )


def _model_files(directory: Path, resolution: Resolution) -> dict[str, str]:
    names = sorted(
        path.name
        for path in directory.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.suffix not in _PICKLES
    )
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise Failure(
            Reason.NO_SUCH_MODEL,
            "a model directory needs config.json and *.safetensors",
            where=str(directory),
            next_step="save it with save_pretrained(directory)",
        )
    return {name: resolution.digest(directory / name) for name in names}


def _scorer(scorer: str, facts: TaskFacts, resolution: Resolution) -> dict[str, str]:
    """The source file of a `module:function` scorer: its content is an input like any other."""
    if facts.scorers is not None and scorer in facts.scorers.built_in:
        return {}
    module = scorer.partition(":")[0]
    path = Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        spec = None if "." in module or module == "__main__" else importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise Failure(
                Reason.MISSING_INPUT,
                f"no file {path} here and no importable module '{module}'",
                where=f"scorer '{scorer}'",
                next_step="run the command in the directory of the module's file",
            )
        path = Path(spec.origin)
    return {f"{SCORER_PREFIX}{module}.py": resolution.digest(path)}


__all__ = ["Resolution", "choose_source", "read_lock", "resolve"]
