"""Providers: services that speak the OpenAI wire protocol, as entries of `catalog/providers.yaml`."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from launcher.spec.documents import read_yaml
from launcher.spec.strict import Strict

CATALOG = Path(__file__).parent / "catalog" / "providers.yaml"
#: The provider of a hosted contender that names none.
DEFAULT_PROVIDER = "openai"

_Count = Annotated[int, Field(ge=1)]
_Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


def web_address(value: str) -> str:
    """Validate a service's base URL. The error omits the value: a URL can contain a password."""
    if not re.fullmatch(
        r"https?://[A-Za-z0-9.\-]+(:\d{1,5})?(/[\w.\-/]*)?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?(/[\w.\-/]*)?",
        value,
    ):
        raise ValueError("must be http(s)://host[:port][/path], without user, query or fragment")
    return value


class Limits(Strict):
    """The largest requests that a provider accepts, and the fewest training examples."""

    upload_bytes: _Count
    examples: _Count
    batch_requests: _Count
    batch_bytes: _Count
    #: Tokens of one training example, for models that `example_tokens_of` does not list.
    example_tokens: _Count
    example_tokens_of: dict[str, _Count] = {}

    def example_limit_tokens(self, model: str) -> int:
        """Tokens of one training example for `model`; a dated name has the limit of its family."""
        for name in sorted(self.example_tokens_of, key=len, reverse=True):
            if model == name or model.startswith(f"{name}-"):
                return self.example_tokens_of[name]
        return self.example_tokens


class Provider(Strict):
    """One service. `embedded` marks the rehearsal server, which runs inside the stage and needs no address or key."""

    name: str
    base_url: Annotated[str, AfterValidator(web_address)] | None = None
    #: Environment variable that holds the API key.
    key_variable: _Variable | None = None
    #: Environment variable with the path of a file that holds the API key, such as a mounted Secret.
    key_file_variable: _Variable | None = None
    embedded: bool = False
    #: Position of the hyperparameters in a fine-tuning request: in `method`, or as a top-level key.
    hyperparameters: Literal["method", "top-level"]
    #: Regular expression for names of the provider's models; None: any name.
    model_pattern: str | None = None
    #: Whether the provider has a Batch API.
    batches: bool = True
    #: First day on which the provider accepts no fine-tuning job.
    tuning_closes: date | None = None
    limits: Limits
    source: str
    date: date

    @model_validator(mode="after")
    def _has_address_and_key(self) -> Provider:
        given = (self.base_url, self.key_variable, self.key_file_variable)
        if self.embedded and any(value is not None for value in given):
            raise ValueError("an embedded provider has no base_url, key_variable or key_file_variable")
        if not self.embedded and None in given:
            raise ValueError("base_url, key_variable and key_file_variable are needed")
        return self

    def accepts_model(self, model: str) -> bool:
        return self.model_pattern is None or re.fullmatch(self.model_pattern, model) is not None


@cache
def providers() -> dict[str, Provider]:
    """All providers by name."""
    document = read_yaml(CATALOG.read_text(encoding="utf-8"), CATALOG.name)
    named = {name: {"name": name, **entry} for name, entry in document.items()}
    return TypeAdapter(dict[str, Provider]).validate_python(named)


def provider_name(value: str) -> str:
    """Validate the name of a provider."""
    if value not in providers():
        raise ValueError(
            f"unknown provider; known: {', '.join(sorted(providers()))}. "
            "For another service with the OpenAI protocol leave provider out and give base_url"
        )
    return value


def embedded_provider() -> Provider:
    """The rehearsal server."""
    return next(provider for provider in providers().values() if provider.embedded)


def stage_provider(name: str | None, *, rehearsed: bool) -> Provider:
    """The provider of a stage: the one named in its settings, else the rehearsal server or the default."""
    if name is None and rehearsed:
        return embedded_provider()
    return providers()[name or DEFAULT_PROVIDER]
