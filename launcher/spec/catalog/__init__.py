"""Models, hardware and dated prices: facts kept as data, typed when they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from launcher.spec.documents import read_yaml
from launcher.spec.strict import Strict

_HERE = Path(__file__).parent


class Shape(Strict):
    """Facts of a model that estimates need."""

    parameters: int
    layers: int
    hidden_size: int
    vocabulary: int


class CatalogModel(Strict):
    """A model with a short name. `source` is a ModelSource; a hub source may lack its revision."""

    licence: str
    source: dict[str, Any]
    shape: Shape


class Device(Strict):
    """A device's usable memory and speed; None for a CPU."""

    memory_gib: float | None
    peak_tflops: float | None
    utilisation_assumed: float | None


class GpuPrice(Strict):
    """Price of one GPU for an hour; for the device `cpu`, of a whole machine."""

    device: str
    usd: Annotated[float, Field(ge=0)]
    source: str
    date: date


_Usd = Annotated[float, Field(ge=0)]


class HostedPrice(Strict):
    """Dollars per million tokens of one hosted model from one source; None: not in the source."""

    model: Annotated[str, Field(min_length=1)]
    training: _Usd | None = None
    tuned_input: _Usd | None = None
    tuned_output: _Usd | None = None
    input: _Usd | None = None
    output: _Usd | None = None
    batch_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    shut_down: date | None = None
    source: str
    date: date

    def training_usd(self, tokens: float) -> float | None:
        """Dollars of training on `tokens`; None if training has no price."""
        return None if self.training is None else tokens / 1e6 * self.training


class Rate(Strict):
    """Price of answers in dollars per million tokens, and its source."""

    input: float
    output: float
    price: HostedPrice

    def usd(self, prompt_tokens: float, answer_tokens: float) -> float:
        return (prompt_tokens * self.input + answer_tokens * self.output) / 1e6


class Prices(Strict):
    """Dated prices of GPUs and of hosted models."""

    gpu_hour_usd: list[GpuPrice]
    hosted_per_million_tokens_usd: list[HostedPrice]

    def gpu(self, device: str) -> GpuPrice | None:
        """The newest price of a device, or None."""
        known = [price for price in self.gpu_hour_usd if price.device == device]
        return max(known, key=lambda price: price.date) if known else None

    def extended(self, own: Sequence[GpuPrice], own_hosted: Sequence[HostedPrice] = ()) -> Prices:
        """These and a site's own prices, which replace the catalogue's of the same devices and models."""
        devices = {price.device for price in own}
        kept = [price for price in self.gpu_hour_usd if price.device not in devices]
        models = {price.model for price in own_hosted}
        others = [price for price in self.hosted_per_million_tokens_usd if price.model not in models]
        return self.model_copy(
            update={"gpu_hour_usd": [*kept, *own], "hosted_per_million_tokens_usd": [*others, *own_hosted]}
        )

    def training(self, model: str) -> HostedPrice | None:
        """The newest price of tuning `model`, or None."""
        return self._newest(model, "training")

    def answering(self, model: str, *, tuned: bool, batch: bool) -> Rate | None:
        """The newest price of answers, or None."""
        names = ("tuned_input", "tuned_output") if tuned else ("input", "output")
        price = self._newest(model, *names)
        if price is None:
            return None
        share = price.batch_share if batch else 1.0
        read, written = (getattr(price, name) * share for name in names)
        return Rate(input=read, output=written, price=price)

    def shut_down(self, model: str) -> date | None:
        """First day on which the service no longer offers `model`."""
        days = [price.shut_down for price in self._of(model) if price.shut_down is not None]
        return min(days, default=None)

    def hosted_models(self, figure: str) -> list[str]:
        """Names of the hosted models whose price has this figure."""
        prices = self.hosted_per_million_tokens_usd
        return sorted({price.model for price in prices if getattr(price, figure) is not None})

    def _of(self, model: str) -> list[HostedPrice]:
        """Prices of a name; a dated name without own prices has those of its family."""
        for name in (model, re.sub(r"-\d{4}-\d{2}-\d{2}\Z", "", model)):
            if found := [p for p in self.hosted_per_million_tokens_usd if p.model == name]:
                return found
        return []

    def _newest(self, model: str, *names: str) -> HostedPrice | None:
        known = [p for p in self._of(model) if all(getattr(p, name) is not None for name in names)]
        return max(known, key=lambda price: price.date) if known else None


def _read(name: str) -> Any:
    return read_yaml((_HERE / name).read_text(encoding="utf-8"), name)


@cache
def models() -> dict[str, CatalogModel]:
    """The models of the catalogue by short name."""
    return TypeAdapter(dict[str, CatalogModel]).validate_python(_read("models.yaml"))


@cache
def devices() -> dict[str, Device]:
    """The devices of the catalogue by name."""
    return TypeAdapter(dict[str, Device]).validate_python(_read("hardware.yaml"))


@cache
def prices() -> Prices:
    """The catalogue's prices."""
    return Prices.model_validate(_read("prices.yaml"))
