"""Names become digests, before the plan: hub ids to revisions, directories and files to sha256.

The only place where making a plan touches the outside: files the user named, and the model
hub's API where a hub id has no revision yet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from launcher.outcome import Failure, Reason
from launcher.resolve.hub import commit_of
from launcher.spec import catalog
from launcher.spec.contenders import Contender, HostedModel
from launcher.spec.experiment import BUILT_IN_SCORERS, SOURCES, Experiment
from launcher.spec.lock import FORMAT, Lock, LockedModel
from launcher.spec.planner import stand_in
from launcher.spec.stages import DirectoryModel, HubData, HubModel, ModelSource
from launcher.spec.strict import describe
from launcher.store import digest_file

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_SOURCE: TypeAdapter[ModelSource] = TypeAdapter(ModelSource)
_RELOCK = "write the lock anew: --relock; or keep a second one for this: --lock OTHER.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py")


@dataclass
class Resolution:
    """A lock, the experiment in the lock's words, and where on this machine the locked files lie.

    A model given as a directory is called by its content in `experiment` and `lock`
    (`directory-<12 hex digits>`), so that no path of this machine reaches a plan.
    """

    experiment: Experiment
    lock: Lock
    locations: dict[str, Path] = field(default_factory=dict)


def resolve(
    experiment: Experiment, *, data_directory: Path | None = None, locked: Lock | None = None
) -> Resolution:
    """Resolve every outside name of `experiment`; with `locked`, to what it says and nothing else.

    A name that a lock lacks is refused: resolved here and now it could be another thing elsewhere or later.
    A built-in sample gives way to the data of the lock, as it does to a directory's (`choose_source`).
    Raises Failure(NO_SUCH_MODEL | MISSING_INPUT | NETWORK | BAD_DATA) with every problem at once.
    """
    if locked is not None and data_directory is None:
        experiment = _with_locked_source(experiment, locked)
    resolution = Resolution(experiment, Lock())
    problems: list[Failure] = []
    models: dict[str, LockedModel] = {}
    contenders: list[Contender] = []
    for name in dict.fromkeys(filter(None, map(_weights, experiment.contenders))):
        try:
            models[name] = _model(name, resolution, locked)
        except Failure as failure:
            problems.append(failure)
    for contender in experiment.contenders:
        contenders.append(_relabelled(contender, models))
    data_files: dict[str, str] = {}
    data_source: HubData | None = None
    try:
        data_files, data_source = _rows(experiment.data.source, data_directory, resolution, locked)
    except Failure as failure:
        problems.append(failure)
    scorer_files: dict[str, str] = {}
    for scorer in experiment.scorers:
        try:
            found = _scorer(scorer, resolution)
            if locked is not None:
                _same_as_locked(found, {n: d for n, d in locked.scorer_files.items() if n in found}, scorer)
            scorer_files.update(found)
        except Failure as failure:
            problems.append(failure)
    if problems:
        raise _together(problems)
    resolution.experiment = experiment.model_copy(update={"contenders": tuple(contenders)})
    resolution.lock = Lock(
        models={_label(name, model): model for name, model in models.items()},
        data_source=data_source,
        data_files=data_files,
        scorer_files=scorer_files,
    )
    return resolution


def _rows(
    source: str, directory: Path | None, resolution: Resolution, locked: Lock | None
) -> tuple[dict[str, str], HubData | None]:
    """The files of a data source, or where they are downloaded from; nothing for the built-in sample."""
    if source == "sample":
        return {}, None
    # A lock without data, or with another source's, says nothing of this one: then a directory has to be named.
    if locked is not None and directory is None and _holds(locked, source):
        return dict(locked.data_files), locked.data_source
    files, hub_data = _data(source, directory, resolution)
    if locked is not None:
        _same_as_locked(files, locked.data_files, f"--data {directory}")
    return files, hub_data


def _same_as_locked(found: dict[str, str], locked: dict[str, str], where: str) -> None:
    """Raises Failure(MISSING_INPUT) where none was locked, Failure(BAD_DATA) where others were."""
    changed = sorted(name for name in found.keys() | locked.keys() if found.get(name) != locked.get(name))
    if found and not locked:
        raise Failure(Reason.MISSING_INPUT, "its files are not in the lock", where=where, next_step=_RELOCK)
    if changed:
        raise Failure(
            Reason.BAD_DATA,
            "the files are not those of the lock",
            where=where,
            problems=tuple(changed),
            next_step="use the files that were locked, or write the lock anew: --relock",
        )


def read_lock(path: Path) -> Lock:
    """A lock file. Raises Failure where it cannot be read or is not one."""
    try:
        document = json.loads(path.read_bytes())
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


def data_root(source: str, directory: Path) -> Path | None:
    """Where in `directory` the layout of `source` lies (itself or its folder of that name), or None."""
    required = [name for name in catalog.named_data()[source].files if not name.endswith("?")]
    for root in (directory, directory / source):
        if required and all((root / name).is_file() for name in required):
            return root
    return None


def choose_source(experiment: Experiment, directory: Path) -> Experiment:
    """The experiment itself, or, where its source is the built-in sample, one that reads `directory` instead.

    Who names a directory wants its data: the first source of the task whose files are there is taken.
    Raises Failure(MISSING_INPUT) where none is.
    """
    if experiment.data.source != "sample":
        return experiment
    candidates = [source for source in SOURCES[experiment.task] if source != "sample"]
    for source in candidates:
        if data_root(source, directory) is not None:
            return _reading(experiment, source)
    raise Failure(
        Reason.MISSING_INPUT,
        "no such directory"
        if not directory.is_dir()
        else f"holds none of the data sets {', '.join(candidates)}",
        where=f"--data {directory}",
        next_step="see docs/data.md for the layouts, or leave --data out to use the built-in sample",
    )


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


def _holds(locked: Lock, source: str) -> bool:
    """Whether a lock has the data of this source: its files, or where they are downloaded from."""
    named = catalog.named_data()[source]
    if locked.data_source is not None:
        return locked.data_source.repository == named.repository
    required = {name for name in named.files if not name.endswith("?")}
    return bool(required) and required <= locked.data_files.keys()


def _with_locked_source(experiment: Experiment, locked: Lock) -> Experiment:
    """The experiment itself, or, where its source is the built-in sample, one of the data that the lock holds."""
    if experiment.data.source != "sample":
        return experiment
    for source in SOURCES[experiment.task]:
        if source != "sample" and _holds(locked, source):
            return _reading(experiment, source)
    return experiment


def _reading(experiment: Experiment, source: str) -> Experiment:
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"source": source})})


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
        next_step=_RELOCK,
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
    return {name: _digest(directory / name, resolution) for name in names}


def _digest(path: Path, resolution: Resolution) -> str:
    try:
        sha256 = digest_file(path).sha256
    except OSError as error:
        raise Failure(Reason.MISSING_INPUT, f"cannot read: {error.strerror}", where=str(path)) from None
    resolution.locations[sha256] = path
    return sha256


def _data(
    source: str, directory: Path | None, resolution: Resolution
) -> tuple[dict[str, str], HubData | None]:
    named = catalog.named_data()[source]
    if directory is None:
        if named.repository is None:
            raise Failure(
                Reason.MISSING_INPUT,
                f"source '{source}' reads a directory, and none was named",
                where="data",
                next_step=f"--data DIR with {', '.join(name.rstrip('?') for name in named.files)}",
            )
        revision = commit_of(named.repository, "main", "datasets")
        files = tuple(name for name in named.files if not name.endswith("?"))
        return {}, HubData(repository=named.repository, revision=revision, files=files)
    if not directory.is_dir():
        raise Failure(Reason.MISSING_INPUT, "no such directory", where=f"--data {directory}")
    root = data_root(source, directory)
    if root is None:
        raise Failure(
            Reason.MISSING_INPUT,
            f"source '{source}' needs {', '.join(name for name in named.files if not name.endswith('?'))}",
            where=f"--data {directory}",
            next_step=f"name the directory that holds them, or its parent with a folder '{source}'",
        )
    files_found: dict[str, str] = {}
    for pattern in named.files:
        for path in sorted(root.glob(pattern.rstrip("?"))):
            files_found[path.relative_to(root).as_posix()] = _digest(path, resolution)
    return files_found, None


def _scorer(scorer: str, resolution: Resolution) -> dict[str, str]:
    """The source file of a `module:function` scorer: its content is an input like any other."""
    if scorer in BUILT_IN_SCORERS:
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
                next_step="run the command where the module's file is",
            )
        path = Path(spec.origin)
    return {f"scorers/{module}.py": _digest(path, resolution)}
