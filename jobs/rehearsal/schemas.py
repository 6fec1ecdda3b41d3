"""Request bodies as pydantic models, and their errors in the API's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from jobs.rehearsal.errors import ApiError, invalid

#: Roles of a conversation, as the chat endpoint takes them.
Role = Literal["system", "user", "assistant", "developer", "tool", "function"]


class Body(BaseModel):
    """Base of request bodies: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]
ObjectId = Annotated[str, Field(max_length=128)]
Auto = Literal["auto"]


class Hyperparameters(Body):
    """Hyperparameters of a fine-tuning job."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"


class Supervised(Body):
    """Settings of the method `supervised`."""

    hyperparameters: Hyperparameters | None = None


class Method(Body):
    """The method of a fine-tuning job."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class CreateJob(Body):
    """The body that creates a fine-tuning job."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    training_file: ObjectId
    validation_file: ObjectId | None = None
    suffix: Annotated[str, Field(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    metadata: Metadata | None = None
    integrations: None = None

    @field_validator("metadata")
    @classmethod
    def _few(cls, value: Metadata | None) -> Metadata | None:
        if value is not None and len(value) > 16:
            raise ValueError("at most 16 keys")
        return value

    @property
    def chosen(self) -> Hyperparameters:
        """Hyperparameters from `method`, else the top-level ones."""
        if self.method and self.method.supervised and self.method.supervised.hyperparameters:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()


class TextPart(Body):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One message of a conversation."""

    role: Role
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None

    def plain(self) -> dict[str, str]:
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class CreateCompletion(Body):
    """Decoding is greedy: `temperature`, `top_p` and `seed` have no effect. Other sampling options are refused."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    user: str | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default"] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CreateBatch(Body):
    """The body that creates a batch."""

    input_file_id: ObjectId
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None

    _few = field_validator("metadata")(CreateJob._few.__func__)  # type: ignore[attr-defined]


class BatchLine(Body):
    """One line of a batch's input file."""

    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: dict[str, Any]


Model = TypeVar("Model", bound=Body)


def read(model: type[Model], value: Any) -> Model:
    """Validate `value`. Raises ApiError(400) for the first invalid parameter."""
    if not isinstance(value, dict):
        raise invalid("We could not parse the JSON body of your request: it is not an object.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _api_error(error) from None


def _api_error(error: ValidationError) -> ApiError:
    item = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in item["loc"])[:200]
    if item["type"] == "extra_forbidden":
        return invalid(f"Unrecognized request argument supplied: {param}", param, "unknown_parameter")
    if item["type"] == "missing":
        return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if item["type"] in ("literal_error", "greater_than_equal", "less_than_equal", "greater_than"):
        return invalid(f"Invalid value for '{param}': {item['msg']}.", param, "invalid_value")
    return invalid(f"Invalid type for '{param}': {item['msg']}.", param, "invalid_type")
