"""The contenders of an experiment: open models as they are or tuned, and hosted models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

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


ContenderName = Annotated[str, dns_label(12)]


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
