"""The experiment: a YAML file's content, strictly typed. `loading` reads it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from launcher.outcome import Failure
from launcher.spec.contenders import Contender
from launcher.spec.strict import Seed, Strict, dns_label
from launcher.spec.tasks import SettingValue, TaskFacts, TaskName, facts_of


class Data(Strict):
    """The source of rows, and how many are used.

    A source without a validation part gives up `validation_rows` of its training part. The verdict is about
    the `test` part.
    """

    source: TaskName = "sample"
    train_rows: Annotated[int, Field(ge=1)] | None = None
    validation_rows: Annotated[int, Field(ge=0)] | None = None
    test_rows: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 0


#: A built-in name, the path of a folder, or the label of a folder that was resolved (see `launcher.spec.tasks`).
Task = Annotated[str, Field(min_length=1)]


class Experiment(Strict):
    """A whole experiment, profiles already applied."""

    format: Literal[1] = 1
    name: Annotated[str, dns_label(16)]
    description: str = ""
    task: Task
    #: Values of the task's own settings; those left out have the task's defaults.
    settings: dict[str, SettingValue] = {}
    data: Data = Data()
    scorers: tuple[str, ...] = ()
    contenders: Annotated[tuple[Contender, ...], Field(min_length=1)]
    baseline: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    budget_usd: Annotated[float, Field(ge=0)] | None = None

    _tuples = field_validator("scorers", "contenders", "seeds", mode="before")(
        lambda v: tuple(v) if isinstance(v, list) else v
    )

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, value: Any) -> Any:
        """An experiment that names no source reads the task's first one."""
        if not isinstance(value, dict):
            return value
        data = value.get("data", {})
        facts = _facts(value.get("task"))
        if facts is None or not isinstance(data, dict) or "source" in data:
            return value
        return {**value, "data": {**data, "source": facts.default_source}}

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if problems := inconsistencies(self.model_dump()):
            raise ValueError("\n".join(problems))
        return self


_SEED_SUFFIX = re.compile(r"-s\d+\Z")


def _facts(task: Any) -> TaskFacts | None:
    """The facts of a task; None if they cannot be read or it is a label."""
    try:
        return facts_of(task) if isinstance(task, str) and task else None
    except Failure:
        return None


def inconsistencies(document: dict[str, Any]) -> list[str]:
    """What is wrong between keys, in a document that may be wrong within keys as well.

    Tolerant of missing and mistyped values, so that these problems can be reported together
    with those that pydantic finds.
    """
    problems = []
    contenders = document.get("contenders")
    contenders = contenders if isinstance(contenders, list | tuple) else []
    names = [contender.get("name") if isinstance(contender, dict) else None for contender in contenders]
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            problems.append(f"contenders[{index}].name: '{name}' is taken by an earlier contender")
        if isinstance(name, str) and _SEED_SUFFIX.search(name):
            problems.append(f"contenders[{index}].name: '{name}' ends like a seed; stages are named that way")
    baseline = document.get("baseline")
    if baseline is not None and baseline not in names:
        problems.append(f"baseline: '{baseline}' is none of the contenders {', '.join(map(str, names))}")
    seeds = document.get("seeds")
    if isinstance(seeds, list | tuple) and len({repr(seed) for seed in seeds}) != len(seeds):
        problems.append("seeds: a seed is given twice")
    return problems + _task_problems(document)


def _task_problems(document: dict[str, Any]) -> list[str]:
    """What does not fit the task: its name, source, scorers and settings."""
    task = document.get("task")
    if not isinstance(task, str) or not task:
        return []
    try:
        facts = facts_of(task)
    except Failure as failure:
        described = failure.problems or (f"{failure.where}: {failure.what}".removeprefix(": "),)
        return [f"task: {line}" for line in described]
    if facts is None:
        return []
    problems = []
    name = f"'{facts.name}'"
    if facts.answer != "generate":
        problems.append(f"task: {name} has answers of kind '{facts.answer}', and stages can only generate")
    data = document.get("data")
    source = data.get("source", facts.default_source) if isinstance(data, dict) else facts.default_source
    if source not in facts.sources:
        problems.append(f"data.source: task {name} takes {', '.join(facts.sources)}, not '{source}'")
    problems += _scorer_problems(facts, document.get("scorers"))
    return problems + _setting_problems(facts, document.get("settings"))


def _scorer_problems(facts: TaskFacts, scorers: Any) -> list[str]:
    if facts.scorers is None:
        return [f"scorers: task '{facts.name}' brings its own; leave scorers out"] if scorers else []
    if not scorers:
        return [f"scorers: task '{facts.name}' needs at least one of {', '.join(facts.scorers.built_in)}"]
    if not isinstance(scorers, list | tuple):
        return []
    found = (facts.scorers.problem(scorer) for scorer in scorers if isinstance(scorer, str))
    return [f"scorers: {problem}" for problem in found if problem]


def _setting_problems(facts: TaskFacts, settings: Any) -> list[str]:
    problems = []
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name not in facts.settings:
            known = ", ".join(facts.settings) or "none"
            problems.append(f"settings.{name}: task '{facts.name}' has no such setting; it has {known}")
        elif problem := facts.settings[name].problem(value):
            problems.append(f"settings.{name}: {problem}")
    return problems
