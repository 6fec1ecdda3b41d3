"""The estimates give the numbers that are known of the study's own hardware."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import HOSTED, LORA

from launcher.costs.estimate import StageEstimate, TokenCounts, estimate, training_memory_gib
from launcher.spec import catalog
from launcher.spec.loading import validate
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.planner import plan
from launcher.spec.stages import HubModel, RandomModel, TrainSettings

COUNTS = TokenCounts(
    train_rows=1000,
    test_rows=100,
    upload_tokens=2_000_000,
    train_tokens_per_row=126.0,
    test_prompt_tokens_per_row=100.0,
    test_answer_tokens_per_row=26.0,
)


def settings(quantization: str = "none", micro_batch_tokens: int = 4096, **more: Any) -> TrainSettings:
    plain = {
        "task": "sql",
        "prompt": "plain",
        "lora": {},
        "training": {"quantization": quantization, "micro_batch_tokens": micro_batch_tokens, **more},
        "seed": 1,
        "processes": 4,
        "threads": 1,
        "device": "NVIDIA-A40",
    }
    return TrainSettings.model_validate(plain)


def estimates(counts: TokenCounts | None = COUNTS, **changes: Any) -> dict[str, StageEstimate]:
    contender = {
        **LORA,
        "model": "codellama-34b",
        "hardware": {"device": "NVIDIA-A40"},
        "training": {"quantization": "nf4"},
        "generation": {"quantization": "nf4"},
        **changes,
    }
    experiment = validate({"name": "tiny", "task": "sql", "contenders": [contender]}, where="test")
    source = LockedModel(source=HubModel(repository="o/m", revision="a" * 40))
    lock = Lock(models={str(contender["model"]): source})
    return {one.stage: one for one in estimate(plan(experiment, lock), counts)}


def test_code_llama_34b_fits_one_a40_in_nf4_and_not_in_bf16() -> None:
    shape = catalog.models()["codellama-34b"].shape
    available = catalog.devices()["NVIDIA-A40"].memory_gib
    assert available is not None
    assert training_memory_gib(shape, settings("nf4")) < available
    assert training_memory_gib(shape, settings("int8")) < available
    assert training_memory_gib(shape, settings("none")) > available
    assert estimates()["train-lora-s1"].problem is None
    refused = estimates(training={"quantization": "none"})["train-lora-s1"].problem
    assert refused is not None
    assert "training.quantization=nf4" in refused


@pytest.mark.parametrize(("quantization", "gib"), [("none", 62.9), ("int8", 31.9), ("nf4", 16.9)])
def test_weight_memory_matches_known_sizes(quantization: str, gib: float) -> None:
    shape = catalog.models()["codellama-34b"].shape
    other = catalog.Shape(
        parameters=0, layers=shape.layers, hidden_size=shape.hidden_size, vocabulary=shape.vocabulary
    )
    weights = training_memory_gib(shape, settings(quantization)) - training_memory_gib(
        other, settings(quantization)
    )
    assert weights == pytest.approx(gib, abs=0.1)


def test_zero_3_shards_the_weights_over_its_processes() -> None:
    shape = catalog.models()["codellama-34b"].shape
    whole = training_memory_gib(shape, settings("none", zero_stage=2))
    sharded = training_memory_gib(shape, settings("none", zero_stage=3))
    assert whole - sharded == pytest.approx(62.9 * 3 / 4, abs=0.1)


@pytest.mark.parametrize(
    ("model", "tokens_per_s"), [("codellama-34b", 333), ("llama2-13b", 862), ("llama2-7b", 1666)]
)
def test_training_speed_on_one_a40_under_recompute(model: str, tokens_per_s: float) -> None:
    train = estimates(model=model)["train-lora-s1"]
    assert train.tokens == 400 * 128 * 126
    assert train.hours is not None
    assert train.tokens / train.hours / 3600 == pytest.approx(tokens_per_s, rel=0.005)


def test_dollars_are_hours_times_the_dated_price_of_every_gpu() -> None:
    one, two = (
        estimates(hardware={"device": "NVIDIA-A40", "count": count})["train-lora-s1"] for count in (1, 2)
    )
    assert one.hours is not None
    assert two.hours is not None
    assert one.usd == pytest.approx(one.hours * 0.475)
    assert two.hours == pytest.approx(one.hours / 2)
    assert two.usd == pytest.approx(one.usd)


def test_underivable_figures_are_none() -> None:
    without = estimates(counts=None)
    assert without["train-lora-s1"].tokens is None
    assert without["train-lora-s1"].hours is None
    assert without["train-lora-s1"].usd is None
    assert without["train-lora-s1"].memory_gib is not None
    assert estimates()["predict-lora-s1"].hours is None
    assert estimates(hardware={"device": "NVIDIA-H100-80GB-HBM3"})["train-lora-s1"].usd is None


def test_a_catalogue_model_by_its_hub_id_has_the_catalogues_figures() -> None:
    name = f"codellama/CodeLlama-34b-hf@{'c' * 40}"
    contender = {
        **LORA,
        "model": name,
        "hardware": {"device": "NVIDIA-A40"},
        "training": {"quantization": "nf4"},
        "generation": {"quantization": "nf4"},
    }
    experiment = validate({"name": "tiny", "task": "sql", "contenders": [contender]}, where="test")
    source = HubModel(repository="codellama/CodeLlama-34b-hf", revision="c" * 40)
    found = estimate(plan(experiment, Lock(models={name: LockedModel(source=source)})), COUNTS)
    by_name = estimates()
    for one in found:
        assert one == by_name[one.stage]
    assert by_name["train-lora-s1"].usd is not None


def test_generation_memory_must_fit_too() -> None:
    assert estimates()["predict-lora-s1"].problem is None
    problem = estimates(generation={})["predict-lora-s1"].problem
    assert problem is not None
    assert "generation.quantization=nf4" in problem


def test_an_unknown_device_lists_the_known_ones() -> None:
    problem = estimates(hardware={"device": "NVIDIA-T4"})["train-lora-s1"].problem
    assert problem is not None
    assert "NVIDIA-A40" in problem
    assert "cpu" not in problem


def test_a_hosted_job_is_priced_by_the_tokens_of_its_epochs() -> None:
    def tune(**changes: Any) -> StageEstimate:
        # A service of one's own: the study's model is shut down where it was.
        contender = {**HOSTED, "epochs": 3, "base_url": "http://service.example/v1", **changes}
        document = {"name": "tiny", "task": "sql", "contenders": [contender]}
        found = estimate(plan(validate(document, where="test"), Lock()), COUNTS)
        return next(one for one in found if one.stage == "tune-hosted-s1")

    assert tune().problem is None
    assert tune().tokens == 6_000_000
    assert tune().usd == pytest.approx(6 * 8.00)
    problem = tune(model="gpt-unknown").problem
    assert problem is not None
    assert "gpt-3.5-turbo-0613" in problem


def test_a_rehearsed_job_costs_nothing_and_says_what_it_would_cost() -> None:
    contender = {**HOSTED, "epochs": 3, "provider": "rehearsal", "rehearsal": {"stand_in": "random-llama"}}
    document = {"name": "tiny", "task": "sql", "contenders": [contender]}
    lock = Lock(models={"random-llama": LockedModel(source=RandomModel())})
    found = {one.stage: one for one in estimate(plan(validate(document, where="test"), lock), COUNTS)}
    assert {one.usd for one in found.values()} == {None}
    assert found["tune-hosted-s1"].would_cost_usd == pytest.approx(6 * 8.00)
    assert (found["predict-hosted-s1"].would_cost_usd or 0) > 0


def test_every_price_and_device_of_the_catalogue_has_what_estimates_need() -> None:
    for price in [*catalog.prices().gpu_hour_usd, *catalog.prices().hosted_per_million_tokens_usd]:
        assert price.source
        assert price.date.year >= 2023
    for name, device in catalog.devices().items():
        assert name == "cpu" or (device.memory_gib and device.peak_tflops and device.utilisation_assumed)
    for model in catalog.models().values():
        assert model.licence
