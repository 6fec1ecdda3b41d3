"""What the folder of a task holds, and the records that its functions exchange with the stages.

A folder `jobs/tasks/NAME` (or one of the user's own) has:

    task.yaml    the task's facts, see `launcher.spec.tasks.TaskFacts`
    prompt.py    `plain_prompt(row) -> str`; optionally `with_settings`
    source.py    `SOURCES: tuple[Source, ...]`; optionally `faults` and `copy_files`
    scorer.py    `score(rows, answers, context) -> Scored`; optionally `explain`
    README.md    what the task measures and where its data and prompts come from

The modules of a user's own folder import each other relatively (`from .prompt import make_row`): the folder has no
place among the packages. `registry` imports each module when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jobs.measures.row_score import RowScore
from jobs.tasks.reading import Problems
from jobs.tasks.rows import Parts, Row
from launcher.spec.tasks import SettingValue

#: Reports (done, total).
Progress = Callable[[int, int], None]
#: A fault of the data: {"part", "what", "rows", "of"}.
Fault = dict[str, str | int]


class Generate(Protocol):
    """Makes the rows of a source without files."""

    def __call__(self, counts: Mapping[str, int | None], seed: int, out: Path, progress: Progress) -> Parts:
        """`counts`: rows asked for of train, validation and test; None: the source's own number.

        Files that rows point at go below `out`. Raises Failure(BAD_DATA) for more rows than there are.
        """
        ...


class HoldOut(Protocol):
    """Makes a test part out of the training part if the test file is not there."""

    def __call__(self, rows: Sequence[Row], seed: int, directory: Path) -> tuple[list[Row], list[Row], str]:
        """(train, test, a note for the data card)."""
        ...


class Read(Protocol):
    """Reads one part of a source's files, in the data's order, with every problem noted."""

    def __call__(self, directory: Path, part: str, problems: Problems) -> list[Row]: ...


def _no_reader(directory: Path, part: str, problems: Problems) -> list[Row]:
    raise AssertionError(
        f"no {part} in {directory}: the source generates its rows ({len(problems.lines)} problems)"
    )


@dataclass(frozen=True)
class Source:
    """A source of rows. `files` names the file of each part (train, validation, test) that it has."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    read: Read = _no_reader
    #: Further part names that `read` takes, as the data's own files are called.
    also_readable: Mapping[str, str] = field(default_factory=dict)
    generate: Generate | None = None
    hold_out: HoldOut | None = None

    @property
    def readable(self) -> dict[str, str]:
        """Part name -> file, of every name that one may ask for."""
        return {**self.files, **self.also_readable}


@dataclass(frozen=True)
class ScoreContext:
    """What a scorer may use besides rows and answers."""

    #: The directory that paths in rows are relative to.
    directory: Callable[[], Path]
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    #: The scorers that the experiment names, for a task that has `scorers`.
    scorers: tuple[str, ...] = ()
    #: The file of a `module:function` scorer's module.
    find_module: Callable[[str], Path] = Path
    progress: Progress | None = None
    #: Worker processes; None: the task decides.
    workers: int | None = None
    #: File that keeps scores by content; None keeps nothing.
    cache: Path | None = None


@dataclass(frozen=True)
class Scored:
    """A score per row, in order. `extra` is added to the summary."""

    rows: list[RowScore]
    extra: Mapping[str, Any] = field(default_factory=dict)


class PromptModule(Protocol):
    """`prompt.py` of a task."""

    def plain_prompt(self, row: Row) -> str:
        """The prompt for a model without chat format; the answer is appended to it as it is."""
        ...

    # Optional function, called after sampling:
    #   with_settings(parts: Parts, settings: Mapping[str, SettingValue]) -> Parts
    #     the rows as the task's settings ask for them, for example with examples before the question


class SourceModule(Protocol):
    """`source.py` of a task."""

    @property
    def SOURCES(self) -> tuple[Source, ...]:
        """The sources of task.yaml."""
        ...

    # Optional functions:
    #   faults(part: str, rows: Sequence[Row], directory: Path) -> list[Fault]
    #     known faults of the data, counted for the data card
    #   copy_files(parts: Parts, base: Path, out: Path) -> Parts
    #     copies the files that rows point at from `base` to `out`; the rows then point there


class ScorerModule(Protocol):
    """`scorer.py` of a task."""

    def score(self, rows: Sequence[Row], answers: Sequence[str], context: ScoreContext) -> Scored:
        """Raises Failure(BAD_DATA) for rows that cannot be scored."""
        ...

    # Optional function:
    #   explain(row: Row, answer: str, context: ScoreContext) -> dict[str, Any]
    #     {"score": RowScore.to_json(), "proof": …} of one answer
