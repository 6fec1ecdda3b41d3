"""Loads a task by its name, or from the files of a user's own folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from jobs.tasks.contract import (
    Fault,
    PromptModule,
    ScoreContext,
    Scored,
    ScorerModule,
    Source,
    SourceModule,
)
from jobs.tasks.rows import Parts, Row
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import (
    SettingValue,
    TaskFacts,
    built_in,
    built_in_names,
    read_facts,
    tasks_directory,
    unknown,
)

#: The package under which a user's folder is imported.
_USER_PACKAGE = "tuneyard_user_task"


class Task:
    """A task: its facts, and its modules, which are imported when they are first used."""

    def __init__(self, facts: TaskFacts, package: str, folder: Path, *, is_built_in: bool) -> None:
        self.facts = facts
        self.folder = folder
        self.is_built_in = is_built_in
        self._package = package

    @property
    def name(self) -> str:
        return self.facts.name

    def plain_prompt(self, row: Row) -> str:
        return cast(PromptModule, self._module("prompt")).plain_prompt(row)

    @property
    def with_settings(self) -> Callable[[Parts, Mapping[str, SettingValue]], Parts] | None:
        return getattr(self._module("prompt"), "with_settings", None)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The sources by name. Raises Failure(BAD_DATA) if they are not those of task.yaml."""
        found = {source.name: source for source in cast(SourceModule, self._module("source")).SOURCES}
        if found.keys() != self.facts.sources.keys():
            raise Failure(
                Reason.BAD_DATA,
                f"source.py has the sources {', '.join(found)}, task.yaml has {', '.join(self.facts.sources)}",
                where=f"task {self.name}",
            )
        return {name: found[name] for name in self.facts.sources}

    @property
    def faults(self) -> Callable[[str, Sequence[Row], Path], list[Fault]] | None:
        return getattr(self._module("source"), "faults", None)

    @property
    def copy_files(self) -> Callable[[Parts, Path, Path], Parts] | None:
        return getattr(self._module("source"), "copy_files", None)

    def score(self, rows: Sequence[Row], answers: Sequence[str], context: ScoreContext) -> Scored:
        """Raises Failure(UNSUPPORTED) if a package that scoring needs is not installed."""
        return cast(ScorerModule, self._module("scorer")).score(rows, answers, context)

    @property
    def explain(self) -> Callable[[Row, str, ScoreContext], dict[str, Any]] | None:
        return getattr(self._module("scorer"), "explain", None)

    def _module(self, name: str) -> ModuleType:
        try:
            return importlib.import_module(f"{self._package}.{name}")
        except ModuleNotFoundError as error:
            missing = str(error.name)
            if missing == f"{self._package}.{name}":
                raise Failure(
                    Reason.BAD_DATA, f"its folder has no {name}.py", where=f"task {self.name}"
                ) from None
            raise Failure(
                Reason.UNSUPPORTED,
                f"task '{self.name}' needs {missing}, which is not installed",
                next_step="pip install 'tuneyard[score]'" if self.is_built_in else f"install {missing}",
            ) from None


def task(name: str | Task) -> Task:
    """The built-in task called `name`; a Task is returned as it is. Raises Failure(USAGE) listing the known ones."""
    if isinstance(name, Task):
        return name
    if not is_built_in(name):
        raise Failure(Reason.USAGE, unknown(name))
    return Task(built_in(name), f"jobs.tasks.{name}", tasks_directory() / name, is_built_in=True)


def is_built_in(name: str) -> bool:
    """Whether a task of that name is in `jobs/tasks`."""
    return name in built_in_names()


def task_of_folder(folder: Path) -> Task:
    """The task in a folder of the user's own, whose code runs in this process from now on."""
    facts = read_facts(folder)
    # The package is empty: its modules are found in the folder.
    spec = importlib.util.spec_from_loader(_USER_PACKAGE, loader=None, is_package=True)
    assert spec is not None
    package = importlib.util.module_from_spec(spec)
    package.__path__ = [str(folder)]
    for loaded in [name for name in sys.modules if name.partition(".")[0] == _USER_PACKAGE]:
        del sys.modules[loaded]
    sys.modules[_USER_PACKAGE] = package
    importlib.invalidate_caches()
    return Task(facts, _USER_PACKAGE, folder, is_built_in=False)


def question_of(row: Row) -> str:
    """What is asked: the last user message, the same text that every prompt style shows."""
    for message in reversed(row.messages[:-1]):
        if message["role"] == "user":
            return message["content"]
    return row.messages[0]["content"]
