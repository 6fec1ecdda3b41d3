"""Costs of hosted models, computed offline: default epochs, dollars of tokens, and why a plan is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from launcher.spec import catalog
from launcher.spec.catalog import HostedPrice, Prices
from launcher.spec.plan import Stage
from launcher.spec.providers import stage_provider
from launcher.spec.stages import HostedPredictSettings, TuneSettings

_TARGET_EPOCHS = 1
_LEAST_EXAMPLES, _MOST_EXAMPLES = 100, 25_000
_LEAST_DEFAULT_EPOCHS, _MOST_DEFAULT_EPOCHS = 3, 25


def default_epochs(examples: int) -> int:
    """Epochs by the study's notebook: one, unless that shows fewer than 100 or more than 25,000 examples."""
    if examples * _TARGET_EPOCHS < _LEAST_EXAMPLES:
        return min(_MOST_DEFAULT_EPOCHS, max(1, _LEAST_EXAMPLES // max(examples, 1)))
    if examples * _TARGET_EPOCHS > _MOST_EXAMPLES:
        return max(_LEAST_DEFAULT_EPOCHS, _MOST_EXAMPLES // examples)
    return _TARGET_EPOCHS


def hosted_problem(
    settings: TuneSettings | HostedPredictSettings,
    *,
    tuned: bool = True,
    prices: Prices | None = None,
    today: date | None = None,
) -> str | None:
    """Why this stage is refused: the model is shut down, tuning is closed, or a price is unknown. None: no problem.

    A rehearsal calls no service, but the price that it reports must be known too.
    """
    prices = prices or catalog.prices()
    if problem := _closed(settings, prices, today or date.today()):
        return problem
    if isinstance(settings, TuneSettings):
        known, what, figure = prices.training(settings.model) is not None, "training", "training"
    else:
        rate = prices.answering(settings.model, tuned=tuned, batch=settings.batch)
        known, what = rate is not None, "tuned answers" if tuned else "answers"
        figure = "tuned_output" if tuned else "output"
    if known:
        return None
    return (
        f"no price of {what} for '{settings.model}': known for {', '.join(prices.hosted_models(figure))}; "
        "add one to the site file under hosted_per_million_tokens_usd (model, prices, source, date)"
    )


def _closed(settings: TuneSettings | HostedPredictSettings, prices: Prices, today: date) -> str | None:
    """Which closing date of the model or of its provider has passed; another service has other dates."""
    if settings.rehearsal is not None or settings.base_url is not None:
        return None
    day = prices.shut_down(settings.model)
    if day is not None and today >= day:
        return (
            f"'{settings.model}' was shut down on {day.isoformat()}: name another model, give base_url of a "
            "service that has it, or rehearse it (provider: rehearsal)"
        )
    provider = stage_provider(settings.provider, rehearsed=False)
    closes = provider.tuning_closes if isinstance(settings, TuneSettings) else None
    if closes is not None and today >= closes:
        return (
            f"{provider.name} has accepted no fine-tuning job since {closes.isoformat()}: give base_url of "
            "another service, or rehearse it (provider: rehearsal)"
        )
    return None


def hosted_usd(
    stage: Stage, measured: Mapping[str, int | float], prices: Prices
) -> tuple[float, HostedPrice] | None:
    """Dollars of the tokens that a tune or hosted predict stage measured, and the price used."""
    settings = stage.typed_settings()
    if isinstance(settings, TuneSettings):
        price, tokens = prices.training(settings.model), measured.get("trained_tokens")
        usd = price.training_usd(tokens) if price is not None and tokens is not None else None
        return None if price is None or usd is None else (usd, price)
    if not isinstance(settings, HostedPredictSettings) or "prompt_tokens" not in measured:
        return None
    rate = prices.answering(settings.model, tuned="tuned" in stage.needs, batch=settings.batch)
    if rate is None:
        return None
    return rate.usd(measured["prompt_tokens"], measured["answer_tokens"]), rate.price


def is_paid_service(stage: Stage) -> bool:
    """Whether a stage calls a service that bills tokens."""
    settings = stage.typed_settings()
    return isinstance(settings, TuneSettings | HostedPredictSettings) and settings.rehearsal is None


def is_rehearsed(stage: Stage) -> bool:
    """Whether a stage calls a rehearsal server instead of a service: its dollars are what it would have cost."""
    settings = stage.typed_settings()
    return isinstance(settings, TuneSettings | HostedPredictSettings) and settings.rehearsal is not None
