"""What a user may write: an experiment, strictly typed.

An experiment is a YAML file; built-in ones go by name. `load` merges the file, one of its
profiles, `-f` files and `--set` paths, in this order, and validates the result once: every
problem is reported, each with its path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from launcher.documents import assign, merge, read_mapping
from launcher.outcome import Failure, Reason

FORMAT = 1
CATALOG = Path(__file__).parent / "catalog"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Strict(BaseModel):
    """Base of everything a user or a file may contain: unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


#: What every random number generator in use accepts.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


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


class Lora(Strict):
    """Low-rank adapter, as peft's LoraConfig takes it."""

    r: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "k_proj", "v_proj", "o_proj")

    _tuples = field_validator("targets", mode="before")(lambda v: tuple(v) if isinstance(v, list) else v)


class Training(Strict):
    """How an adapter is trained. One step is one optimizer update on `batch_rows` rows."""

    steps: Annotated[int, Field(ge=1)] = 400
    batch_rows: Annotated[int, Field(ge=1)] = 128
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 4096
    packing: bool = True
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length_tokens: Annotated[int, Field(ge=16)] = 512
    loss: Literal["answer", "prompt-and-answer"] = "answer"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4", "int8"] = "none"
    recompute: bool = False  # activations again in the backward pass: memory for about a third more work
    zero_stage: Literal[0, 1, 2, 3] = 2
    evaluate_every_steps: Annotated[int, Field(ge=1)] = 20
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 20


class Generation(Strict):
    """How answers are produced. Always greedy; batches are fixed by the plan (see jobs/predict)."""

    batch_rows: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4", "int8"] = "none"


class Hardware(Strict):
    """What one open-model stage runs on. `cpu` asks for no GPU."""

    device: str = "cpu"
    count: Annotated[int, Field(ge=1, le=64)] = 1
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    memory_gib: Annotated[int, Field(ge=1)] = 8


def _dns_label(limit_characters: int) -> Any:
    def check(value: str) -> str:
        if len(value) > limit_characters or not _NAME.fullmatch(value):
            raise ValueError(
                f"must be at most {limit_characters} characters of a-z, 0-9 and '-', neither first nor last '-'"
            )
        return value

    return AfterValidator(check)


ContenderName = Annotated[str, _dns_label(12)]


class OpenContender(Strict):
    """Common to contenders whose weights we hold."""

    name: ContenderName
    model: Annotated[str, Field(min_length=1)]
    prompt: Literal["chat", "plain"] = "chat"
    generation: Generation = Generation()
    hardware: Hardware = Hardware()


class LoraContender(OpenContender):
    """An open model, tuned with LoRA."""

    kind: Literal["lora"]
    lora: Lora = Lora()
    training: Training = Training()


class PromptedContender(OpenContender):
    """An open model as it is."""

    kind: Literal["prompted"]


class Rehearsal(Strict):
    """What stands in for a hosted model: an open one, trained and asked by a server inside the stage itself."""

    stand_in: Annotated[str, Field(min_length=1)] = "smollm2-135m"
    lora: Lora = Lora(r=16, alpha=32, dropout=0.0)
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    dtype: Literal["float32", "bfloat16"] = "float32"
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 2048
    answer_rows: Annotated[int, Field(ge=1, le=1024)] = 25
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    memory_gib: Annotated[int, Field(ge=1)] = 6


def _web_address(value: str) -> str:
    # What was given is not repeated: an address can carry a password.
    if not re.fullmatch(
        r"https?://[A-Za-z0-9.\-]+(:\d{1,5})?(/[\w.\-/]*)?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?(/[\w.\-/]*)?",
        value,
    ):
        raise ValueError("must be http(s)://host[:port][/path], without user, query or fragment")
    return value


class HostedModel(Strict):
    """Common to contenders that a service answers for, by the OpenAI wire protocol.

    `provider: rehearsal` needs no service: `rehearsal.stand_in` is trained and asked in place of `model`.
    """

    name: ContenderName
    model: Annotated[str, Field(min_length=1, max_length=200)]
    provider: Literal["openai", "rehearsal"] = "openai"
    base_url: Annotated[str, AfterValidator(_web_address)] | None = None
    rehearsal: Rehearsal | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    #: Ask through the Batch API, at half the price; None: where it is a rehearsal, whose answers then never vary.
    batch: bool | None = None

    @model_validator(mode="after")
    def _provider_fits(self) -> HostedModel:
        if self.provider == "rehearsal" and self.base_url is not None:
            raise ValueError("provider: rehearsal brings its own server; leave base_url out")
        if self.provider != "rehearsal" and self.rehearsal is not None:
            raise ValueError("rehearsal: only with provider: rehearsal")
        if self.provider == "rehearsal" and self.batch is False:
            raise ValueError("batch: a rehearsal always asks in batches, so that its answers never vary")
        return self

    @property
    def rehearsed(self) -> Rehearsal | None:
        """How it is rehearsed; None where a service answers."""
        return (self.rehearsal or Rehearsal()) if self.provider == "rehearsal" else None

    @property
    def batched(self) -> bool:
        return self.batch if self.batch is not None else self.provider == "rehearsal"


class HostedContender(HostedModel):
    """A model tuned through the OpenAI fine-tuning API."""

    kind: Literal["hosted"]
    epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_rows: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = "auto"


class HostedPromptedContender(HostedModel):
    """A hosted model as it is, shown the first `shots` training rows; told from an open one by its `provider`."""

    kind: Literal["prompted"]
    provider: Literal["openai", "rehearsal"]
    shots: Annotated[int, Field(ge=0, le=64)] = 0


def _contender_type(value: Any) -> str | None:
    """Which model a contender is read as: its kind, but two models share the kind `prompted`."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    hosted = "provider" in value if isinstance(value, dict) else isinstance(value, HostedModel)
    if kind == "prompted":
        return "prompted-hosted" if hosted else "prompted"
    return kind if kind in ("lora", "hosted") else None


Contender = Annotated[
    Annotated[LoraContender, Tag("lora")]
    | Annotated[PromptedContender, Tag("prompted")]
    | Annotated[HostedContender, Tag("hosted")]
    | Annotated[HostedPromptedContender, Tag("prompted-hosted")],
    Discriminator(_contender_type),
]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
BUILT_IN_SCORERS = ("exact", "choice", "number", "json")


class Experiment(Strict):
    """A whole experiment, profiles already applied."""

    format: Literal[1] = 1
    name: Annotated[str, _dns_label(16)]
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
    return validate(
        document,
        where=where,
        problems=problems,
        next_step=f"correct what is listed, then launcher plan {where}",
    )


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


def describe(error: ValidationError) -> list[str]:
    """One line per problem: `contenders[1].lora.r: Input should be greater than or equal to 1 (got 0)`."""
    items = error.errors(include_url=False)
    lines: list[str] = []
    shown: dict[str, int] = {}
    for item in items:
        if item["type"] == "value_error" and not item["loc"]:
            lines += item["msg"].removeprefix("Value error, ").splitlines()
            continue
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] and other is not item for other in items
        ):
            continue  # "0 items after validation", because the items themselves are wrong
        path, message = _path(item["loc"]), _message(item)
        if path in shown and not message.startswith("no such key"):
            lines[shown[path]] += f"; or {message}"  # the members of one union
            continue
        shown[path] = len(lines)
        lines.append(f"{path}: {message}" if path else message)
    return lines


def _message(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "no such key"
    if item["type"].startswith("union_tag"):
        expected = item["ctx"].get("expected_tags", "'lora', 'prompted', 'hosted'")
        return f"kind must be one of {expected}"
    given = item.get("input")
    # An address can carry a password, and is not repeated.
    told = isinstance(given, str | int | float | bool) and item["loc"][-1:] != ("base_url",)
    suffix = f" (got {given!r})" if told else ""
    return item["msg"].removeprefix("Value error, ") + suffix


_UNION_MEMBER = re.compile(r"^(literal|constrained-)|\[")


def _path(location: tuple[Any, ...]) -> str:
    text = ""
    for position, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        # pydantic names a union's member: the contender's kind behind its index, a type in other places
        elif not (position == 2 and location[0] == "contenders") and not _UNION_MEMBER.search(str(part)):
            text += f".{part}" if text else str(part)
    return text


def _read_source(source: str) -> tuple[dict[str, Any], str]:
    built_in = CATALOG / "experiments" / f"{source}.yaml"
    if _NAME.fullmatch(source) and built_in.is_file():
        return read_mapping(built_in), source
    path = Path(source)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise Failure(
            Reason.MISSING_INPUT,
            f"no experiment '{source}': neither built in ({', '.join(built_in_names())}) nor a file",
            next_step="launcher plan sql, or write a YAML file (docs/experiments.md)",
        )
    return read_mapping(path), str(path)
