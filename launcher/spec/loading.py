"""Load an experiment: the file, one of its profiles, `-f` files and `--set` values, merged in this order.

The merged document is validated once, and every problem is reported with its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launcher.outcome import Failure, Reason
from launcher.spec.documents import assign, merge, read_mapping
from launcher.spec.experiment import Experiment, inconsistencies
from launcher.spec.strict import NAME, describe
from launcher.spec.tasks import is_folder

FORMAT = 1
CATALOG = Path(__file__).parent / "catalog"


def built_in_names() -> list[str]:
    """Names of the experiments that come with the launcher."""
    return sorted(path.stem for path in (CATALOG / "experiments").glob("*.yaml"))


def load(
    source: str,
    *,
    profile: str | None = None,
    files: tuple[Path, ...] = (),
    sets: tuple[str, ...] = (),
) -> Experiment:
    """The experiment called `source` (a built-in name or a file), with overrides applied.

    Order: the file, its profile (the one named, else the file's `default_profile`), each of
    `files`, each `path=value` of `sets`. Raises Failure(BAD_EXPERIMENT) with all problems at
    once, Failure(MISSING_INPUT) where a file cannot be read.
    """
    document, where = _read_source(source)
    _refuse_newer(document, where)
    profiles = document.pop("profiles", None) or {}
    chosen = profile or document.pop("default_profile", None)
    document.pop("default_profile", None)
    if chosen is not None:
        document = merge(document, _profile(profiles, chosen, where))
    for path in files:
        document = merge(document, read_mapping(path))
    problems: list[str] = []
    for assignment in sets:
        try:
            assign(document, assignment)
        except ValueError as error:
            problems.append(f"--set {assignment}: {error}")
    _locate_task(document, where)
    return validate(
        document,
        where=where,
        problems=problems,
        next_step=f"correct what is listed, then launcher plan {where}",
    )


def _locate_task(document: dict[str, Any], where: str) -> None:
    """A task's folder is relative to the experiment's file; of a built-in experiment to the current directory."""
    task = document.get("task")
    if isinstance(task, str) and is_folder(task):
        document["task"] = str((Path(where).parent / Path(task).expanduser()).resolve())


def _profile(profiles: Any, name: Any, where: str) -> dict[str, Any]:
    if not isinstance(profiles, dict):
        raise Failure(Reason.BAD_EXPERIMENT, "profiles: must be a mapping of name to overrides", where=where)
    if not isinstance(name, str) or name not in profiles:
        known = ", ".join(sorted(map(str, profiles))) or "none"
        raise Failure(
            Reason.BAD_EXPERIMENT,
            f"no profile '{name}'; it has: {known}",
            where=where,
            next_step="name one of them: --profile NAME" if profiles else "leave --profile out",
        )
    overrides = profiles[name] or {}
    if not isinstance(overrides, dict):
        raise Failure(
            Reason.BAD_EXPERIMENT, f"profiles.{name}: must be a mapping of keys to values", where=where
        )
    return overrides


def _refuse_newer(document: dict[str, Any], where: str) -> None:
    version = document.get("format", FORMAT)
    if isinstance(version, int) and version > FORMAT:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            f"format {version} is newer than this launcher's {FORMAT}",
            where=where,
            next_step="pip install --upgrade tuneyard",
        )


def validate(
    document: dict[str, Any],
    *,
    where: str,
    problems: list[str] | None = None,
    next_step: str = "correct what is listed",
) -> Experiment:
    """An Experiment from a plain document; raises Failure(BAD_EXPERIMENT) listing every problem by its path."""
    problems = list(problems or [])
    _refuse_newer(document, where)
    try:
        experiment = Experiment.model_validate(document)
    except ValidationError as error:
        found = describe(error)
        problems += found + [problem for problem in inconsistencies(document) if problem not in found]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise Failure(
            Reason.BAD_EXPERIMENT,
            count,
            where=where,
            problems=tuple(problems),
            next_step=next_step,
        )
    return experiment


def _read_source(source: str) -> tuple[dict[str, Any], str]:
    built_in = CATALOG / "experiments" / f"{source}.yaml"
    if NAME.fullmatch(source) and built_in.is_file():
        return read_mapping(built_in), source
    path = Path(source)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise Failure(
            Reason.MISSING_INPUT,
            f"no experiment '{source}': neither built in ({', '.join(built_in_names())}) nor a file",
            next_step="launcher plan sql, or write a YAML file (docs/experiments.md)",
        )
    return read_mapping(path), str(path)
