"""The facts of a task, from `task.yaml` in its folder. They are data: nothing of `jobs` is imported.

A built-in task is a folder of `jobs/tasks` and goes by its name. A task of the user's own is a folder that
an experiment names by its path. Once resolved, it goes by `NAME@DIGEST` (12 hex digits), see `label`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from launcher.outcome import Failure, Reason
from launcher.spec.documents import read_mapping, read_yaml
from launcher.spec.strict import Strict, describe, dns_label

FORMAT = 1
FACTS_FILE = "task.yaml"
#: Prefix of the files of a user's task among the inputs of a stage.
INPUT_PREFIX = "task/"
#: The same for the files of `module:function` scorers.
SCORER_PREFIX = "scorers/"
#: A scorer of the user's own: module:function.
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_LABEL = re.compile(r"([a-z0-9][a-z0-9-]*)@([0-9a-f]{12})")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")

MeasureKind = Literal["share", "mean", "ratio"]
SettingValue = bool | int | float | str
#: What a stage's settings and the results call a task.
TaskName = Annotated[str, dns_label(40)]


def _identifier(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError("must be a lower-case name of letters, digits and '_'")
    return name


Identifier = Annotated[str, AfterValidator(_identifier)]


class MeasureFacts(Strict):
    """`share`: right or wrong for each row. `mean`: a number for each row. `ratio`: sums over rows, divided."""

    kind: MeasureKind = "share"
    primary: bool = False


class SourceFacts(Strict):
    """The files that a source reads, and the hub repository from which they can be downloaded.

    A pattern that ends in "?" may match nothing. A source without files generates its rows.
    """

    files: tuple[str, ...] = ()
    repository: str | None = None
    #: A sentence for the report.
    caveat: str | None = None

    _tuples = field_validator("files", mode="before")(lambda v: tuple(v) if isinstance(v, list) else v)

    @field_validator("files")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.startswith(("/", INPUT_PREFIX)) or ".." in name.split("/"):
                raise ValueError(f"'{name}' must be relative, without '..', and not below {INPUT_PREFIX}")
        return value

    @property
    def generated(self) -> bool:
        return not self.files

    @property
    def required(self) -> tuple[str, ...]:
        """The files that must be there."""
        return tuple(name for name in self.files if not name.endswith("?"))


class SettingFacts(Strict):
    """A setting of the task, which an experiment may change under `settings`."""

    type: Literal["bool", "int", "float", "text"]
    default: SettingValue
    choices: tuple[SettingValue, ...] = ()
    description: str = ""

    _tuples = field_validator("choices", mode="before")(lambda v: tuple(v) if isinstance(v, list) else v)

    @model_validator(mode="after")
    def _default_fits(self) -> SettingFacts:
        if problem := self.problem(self.default):
            raise ValueError(f"default: {problem}")
        return self

    def problem(self, value: Any) -> str | None:
        """Why `value` is not allowed; None if it is."""
        types: dict[str, tuple[type, ...]] = {
            "bool": (bool,),
            "int": (int,),
            "float": (int, float),
            "text": (str,),
        }
        if not isinstance(value, types[self.type]) or (isinstance(value, bool) and self.type != "bool"):
            return f"must be of type {self.type} (got {value!r})"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))} (got {value!r})"
        return None


class ScorerFacts(Strict):
    """Scorers that an experiment of the task must choose from; each is a measure, the first the primary one."""

    built_in: tuple[str, ...]
    #: Whether `module:function` of the user's own is allowed.
    functions: bool = False

    _tuples = field_validator("built_in", mode="before")(lambda v: tuple(v) if isinstance(v, list) else v)

    def problem(self, scorer: str) -> str | None:
        """Why the task has no such scorer; None if it has."""
        if scorer in self.built_in or (self.functions and _FUNCTION.fullmatch(scorer)):
            return None
        functions = " and not module:function" if self.functions else ""
        return f"'{scorer}' is none of {', '.join(self.built_in)}{functions}"


class TaskFacts(Strict):
    """A task as `task.yaml` describes it."""

    format: Literal[1] = 1
    name: TaskName
    description: str = ""
    answer: Literal["generate", "choose", "likelihood"]
    #: The first one is the default.
    sources: Annotated[dict[TaskName, SourceFacts], Field(min_length=1)]
    #: Empty if the task has `scorers`.
    measures: dict[Identifier, MeasureFacts] = {}
    scorers: ScorerFacts | None = None
    settings: dict[Identifier, SettingFacts] = {}
    #: What `launcher score` offers for this task besides its common options.
    score_options: tuple[Literal["workers", "survivors"], ...] = ()

    _tuples = field_validator("score_options", mode="before")(
        lambda v: tuple(v) if isinstance(v, list) else v
    )

    @model_validator(mode="after")
    def _one_primary(self) -> TaskFacts:
        primary = [name for name, measure in self.measures.items() if measure.primary]
        if self.scorers is None and len(primary) != 1:
            raise ValueError(f"measures: one must be primary, {len(primary)} are")
        if self.scorers is not None and self.measures:
            raise ValueError("measures: the scorers are the measures; leave them out")
        return self

    @property
    def default_source(self) -> str:
        return next(iter(self.sources))

    @property
    def primary(self) -> str | None:
        """The primary measure; None if the experiment's first scorer is."""
        return next((name for name, measure in self.measures.items() if measure.primary), None)

    def kind(self, measure: str) -> MeasureKind | None:
        """The kind of a measure; None if the task has no such measure. A scorer's measure is a share."""
        if self.scorers is not None:
            return "share" if self.scorers.problem(measure) is None else None
        return self.measures[measure].kind if measure in self.measures else None

    def resolved_settings(self, given: dict[str, SettingValue]) -> dict[str, SettingValue]:
        """Every setting with its value: the one given, or the default."""
        return {name: given.get(name, setting.default) for name, setting in self.settings.items()}


def tasks_directory() -> Path:
    """`jobs/tasks`: beside the package `launcher`, in a checkout and in an installed wheel."""
    return Path(__file__).parents[2] / "jobs" / "tasks"


@cache
def built_in_names() -> tuple[str, ...]:
    """Names of the tasks that come with the program."""
    return tuple(sorted(path.parent.name for path in tasks_directory().glob(f"*/{FACTS_FILE}")))


@cache
def built_in(name: str) -> TaskFacts:
    """The facts of a built-in task. Raises Failure(BAD_EXPERIMENT) listing the known ones."""
    if name not in built_in_names():
        raise Failure(Reason.BAD_EXPERIMENT, unknown(name))
    facts = read_facts(tasks_directory() / name)
    if facts.name != name:
        raise Failure(
            Reason.BAD_EXPERIMENT, f"name: the folder is called '{name}'", where=f"task {facts.name}"
        )
    return facts


def unknown(name: str) -> str:
    """The message for a task that does not exist."""
    return f"no task '{name}'; there are {', '.join(built_in_names())}, or name a folder: ./FOLDER"


def is_folder(task: str) -> bool:
    """Whether an experiment's `task` is a path and not a name."""
    return "/" in task or task in (".", "..") or task.startswith("~")


def read_facts(folder: Path) -> TaskFacts:
    """The facts of the task in `folder`. Raises Failure(MISSING_INPUT | BAD_EXPERIMENT) with every problem."""
    return _facts(read_mapping(folder / FACTS_FILE), str(folder / FACTS_FILE))


def parse_facts(text: str, where: str) -> TaskFacts:
    """The facts in the text of a task.yaml. Raises Failure(BAD_EXPERIMENT) with every problem."""
    return _facts(read_yaml(text, where), where)


def _facts(document: Any, where: str) -> TaskFacts:
    version = document.get("format", FORMAT) if isinstance(document, dict) else FORMAT
    if isinstance(version, int) and version > FORMAT:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            f"format {version} is newer than this launcher's {FORMAT}",
            where=where,
            next_step="pip install --upgrade tuneyard",
        )
    try:
        return TaskFacts.model_validate(document)
    except ValidationError as error:
        raise Failure(
            Reason.BAD_EXPERIMENT, "not the facts of a task", where=where, problems=tuple(describe(error))
        ) from None


def facts_of(task: str) -> TaskFacts | None:
    """The facts behind an experiment's `task`: of a name or a folder; None for a label, whose folder is elsewhere.

    Raises Failure for an unknown name, and for a folder without usable facts.
    """
    if _LABEL.fullmatch(task):
        return None
    if not is_folder(task):
        return built_in(task)
    folder = Path(task).expanduser()
    facts = read_facts(folder)
    if facts.name in built_in_names():
        raise Failure(
            Reason.BAD_EXPERIMENT,
            f"name: '{facts.name}' is the name of a built-in task",
            where=str(folder / FACTS_FILE),
            next_step="give the task another name",
        )
    return facts


def label(name: str, digest: str) -> str:
    """What a task of the user's own is called in a plan, whatever its path."""
    return f"{name}@{digest[:12]}"


def name_of(task: str) -> str:
    """The name in an experiment's resolved `task`: of a label its first part."""
    return task.partition("@")[0]
