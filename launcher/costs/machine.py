"""Cost of machine time."""

from __future__ import annotations

from launcher.spec.catalog import Prices
from launcher.spec.plan import Stage


def machine_usd(stage: Stage, hours: float, prices: Prices) -> float | None:
    """Dollars of the machines that a stage holds for `hours`; None if its device has no price.

    Priced per GPU, or per machine if the stage requests no GPU.
    """
    price = prices.gpu(stage.resources.device)
    units = stage.resources.gpus * stage.resources.nodes or 1
    return hours * units * price.usd if price else None
