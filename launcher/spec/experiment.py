"""The experiment: a YAML file's content, strictly typed. `loading` reads it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from launcher.spec.contenders import Contender
from launcher.spec.strict import Seed, Strict, dns_label


class Data(Strict):
    """Where rows come from and how many are used.

    A source with no validation part of its own gives up `validation_rows` of its training part.
    What the verdict is about is always the `test` part.
    """

    source: Literal["sample", "spider-create-context", "spider", "viggo", "chat"] = "sample"
    train_rows: Annotated[int, Field(ge=1)] | None = None
    validation_rows: Annotated[int, Field(ge=0)] | None = None
    test_rows: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 0


_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
BUILT_IN_SCORERS = ("exact", "choice", "number", "json")


class Experiment(Strict):
    """A whole experiment, profiles already applied."""

    format: Literal[1] = 1
    name: Annotated[str, dns_label(16)]
    description: str = ""
    task: Literal["sql", "viggo", "chat"]
    data: Data = Data()
    scorers: tuple[str, ...] = ()
    contenders: Annotated[tuple[Contender, ...], Field(min_length=1)]
    baseline: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    budget_usd: Annotated[float, Field(ge=0)] | None = None

    _tuples = field_validator("scorers", "contenders", "seeds", mode="before")(
        lambda v: tuple(v) if isinstance(v, list) else v
    )

    @field_validator("scorers")
    @classmethod
    def _known_scorers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for scorer in value:
            if scorer not in BUILT_IN_SCORERS and not _FUNCTION.fullmatch(scorer):
                raise ValueError(
                    f"'{scorer}' is none of {', '.join(BUILT_IN_SCORERS)} and not module:function"
                )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if problems := inconsistencies(self.model_dump()):
            raise ValueError("\n".join(problems))
        return self


_SEED_SUFFIX = re.compile(r"-s\d+\Z")

#: Data sources that each task can read.
SOURCES = {"sql": ("sample", "spider-create-context", "spider"), "viggo": ("viggo",), "chat": ("chat",)}


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
    task, data = document.get("task"), document.get("data")
    source = data.get("source", "sample") if isinstance(data, dict) else "sample"
    if isinstance(task, str) and task in SOURCES and source not in SOURCES[task]:
        problems.append(f"data.source: task '{task}' takes {', '.join(SOURCES[task])}, not '{source}'")
    if task == "chat" and not document.get("scorers"):
        problems.append("scorers: task 'chat' needs at least one of " + ", ".join(BUILT_IN_SCORERS))
    if task in ("sql", "viggo") and document.get("scorers"):
        problems.append(f"scorers: task '{task}' brings its own; leave scorers out")
    return problems
