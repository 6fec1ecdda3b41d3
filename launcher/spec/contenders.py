"""The contenders of an experiment: open models, tuned or not, and hosted models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from launcher.spec.providers import DEFAULT_PROVIDER, Provider, provider_name, providers, web_address
from launcher.spec.strict import Strict, dns_label


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
    recompute: bool = False  # gradient checkpointing: less memory, about a third more compute
    zero_stage: Literal[0, 1, 2, 3] = 2
    evaluate_every_steps: Annotated[int, Field(ge=1)] = 20
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 20


class Generation(Strict):
    """How answers are generated. Decoding is greedy; the plan fixes the batches (see jobs/predict)."""

    batch_rows: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["none", "nf4", "int8"] = "none"


class Hardware(Strict):
    """Hardware of one open-model stage. `cpu` requests no GPU."""

    device: str = "cpu"
    count: Annotated[int, Field(ge=1, le=64)] = 1
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    memory_gib: Annotated[int, Field(ge=1)] = 8


ContenderName = Annotated[str, dns_label(12)]
ProviderName = Annotated[str, AfterValidator(provider_name)]


class OpenContender(Strict):
    """Common to contenders with open weights."""

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
    """An untuned open model."""

    kind: Literal["prompted"]


class Rehearsal(Strict):
    """A hosted model replaced by an open one, which a server inside the stage trains and serves."""

    stand_in: Annotated[str, Field(min_length=1)] = "smollm2-135m"
    lora: Lora = Lora(r=16, alpha=32, dropout=0.0)
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-3
    dtype: Literal["float32", "bfloat16"] = "float32"
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 2048
    answer_rows: Annotated[int, Field(ge=1, le=1024)] = 25
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    memory_gib: Annotated[int, Field(ge=1)] = 6


class HostedModel(Strict):
    """Common to contenders that a service with the OpenAI wire protocol answers for.

    `provider: rehearsal` needs no service: `rehearsal.stand_in` is trained and answers instead of `model`.
    """

    name: ContenderName
    model: Annotated[str, Field(min_length=1, max_length=200)]
    provider: ProviderName = DEFAULT_PROVIDER
    base_url: Annotated[str, AfterValidator(web_address)] | None = None
    rehearsal: Rehearsal | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    #: Whether answers come from the Batch API. None: only in a rehearsal, so that its answers never vary.
    batch: bool | None = None

    @model_validator(mode="after")
    def _provider_fits(self) -> HostedModel:
        provider, name = self.service, self.provider
        if provider.embedded and self.base_url is not None:
            raise ValueError(f"provider: {name} starts its own server; leave base_url out")
        if not provider.embedded and self.rehearsal is not None:
            embedded = ", ".join(one.name for one in providers().values() if one.embedded)
            raise ValueError(f"rehearsal: only with provider: {embedded}")
        if provider.embedded and self.batch is False:
            raise ValueError("batch: a rehearsal always answers in batches, so that its answers never vary")
        if self.batch and not provider.batches:
            raise ValueError(f"batch: {name} has no Batch API; leave batch out")
        if self.base_url is None and not provider.accepts_model(self.model):
            raise ValueError(f"model: not a model name of {name}, which match {provider.model_pattern}")
        return self

    @property
    def service(self) -> Provider:
        """The catalogue's entry of the provider."""
        return providers()[self.provider]

    @property
    def rehearsed(self) -> Rehearsal | None:
        """Settings of the rehearsal; None if a service answers."""
        return (self.rehearsal or Rehearsal()) if self.service.embedded else None

    @property
    def batched(self) -> bool:
        return self.batch if self.batch is not None else self.service.embedded


class HostedContender(HostedModel):
    """A model tuned through the OpenAI fine-tuning API."""

    kind: Literal["hosted"]
    epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_rows: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = "auto"


class HostedPromptedContender(HostedModel):
    """An untuned hosted model, prompted with the first `shots` training rows. `provider` marks it as hosted."""

    kind: Literal["prompted"]
    provider: ProviderName
    shots: Annotated[int, Field(ge=0, le=64)] = 0


def _contender_type(value: Any) -> str | None:
    """Tag of the model that validates a contender: its kind, except that two models share the kind `prompted`."""
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
