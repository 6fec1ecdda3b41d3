"""Models, hardware, named data and dated prices: facts kept as data, typed when they are read."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter

from launcher.experiment import Strict

_HERE = Path(__file__).parent


class Shape(Strict):
    """What an estimate needs to know of a model."""

    parameters: int
    layers: int
    hidden_size: int
    vocabulary: int


class CatalogModel(Strict):
    """A model with a short name. `source` is a ModelSource, except that a hub source may lack its revision."""

    licence: str
    source: dict[str, Any]
    shape: Shape


class Device(Strict):
    """A device's usable memory and speed; None where a CPU's says nothing."""

    memory_gib: float | None
    peak_tflops: float | None
    utilisation_assumed: float | None


class NamedData(Strict):
    """The files a source reads and, where it can be downloaded, the hub repository that holds them."""

    files: list[str]
    repository: str | None = None


class GpuPrice(Strict):
    """What an hour of one GPU of a device costs, or of a whole machine where the device is `cpu`."""

    device: str
    usd: Annotated[float, Field(ge=0)]
    source: str
    date: date


class HostedPrice(Strict):
    """Dollars per million tokens."""

    model: str
    training: float | None = Field(default=None)
    input: float
    output: float
    source: str
    date: date


class Prices(Strict):
    gpu_hour_usd: list[GpuPrice]
    hosted_per_million_tokens_usd: list[HostedPrice]

    def gpu(self, device: str) -> GpuPrice | None:
        """The newest price of a device, or None where there is none."""
        known = [price for price in self.gpu_hour_usd if price.device == device]
        return max(known, key=lambda price: price.date) if known else None

    def extended(self, own: list[dict[str, Any]]) -> Prices:
        """These and a site's own GPU prices (plain documents), which win over the catalogue's."""
        named = [GpuPrice.model_validate(price, strict=False) for price in own]
        devices = {price.device for price in named}
        kept = [price for price in self.gpu_hour_usd if price.device not in devices]
        return self.model_copy(update={"gpu_hour_usd": [*kept, *named]})

    def hosted(self, model: str) -> HostedPrice | None:
        """The newest price of a hosted model, or None where there is none: never guessed."""
        known = [price for price in self.hosted_per_million_tokens_usd if price.model == model]
        return max(known, key=lambda price: price.date) if known else None


def _read(name: str) -> Any:
    return yaml.safe_load((_HERE / name).read_text(encoding="utf-8"))


@cache
def models() -> dict[str, CatalogModel]:
    return TypeAdapter(dict[str, CatalogModel]).validate_python(_read("models.yaml"))


@cache
def devices() -> dict[str, Device]:
    return TypeAdapter(dict[str, Device]).validate_python(_read("hardware.yaml"))


@cache
def named_data() -> dict[str, NamedData]:
    return TypeAdapter(dict[str, NamedData]).validate_python(_read("data.yaml"))


@cache
def prices() -> Prices:
    return Prices.model_validate(_read("prices.yaml"))
