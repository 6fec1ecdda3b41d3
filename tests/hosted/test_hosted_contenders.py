"""Validation of hosted contenders, and their stages in a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.fetch.random_model import create
from jobs.rehearsal.recipe import Recipe, train_settings
from launcher.outcome import Failure
from launcher.resolve.resolver import resolve
from launcher.spec.contenders import HostedContender, HostedPromptedContender, LoraContender
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load, validate
from launcher.spec.planner import plan
from launcher.spec.stages import RandomModel

HOSTED = {"name": "hosted", "kind": "hosted", "model": "gpt-4o-mini"}


def experiment(*contenders: dict[str, Any]) -> Experiment:
    return validate({"name": "settings", "task": "sql", "contenders": list(contenders)}, where="test")


def problems(contender: dict[str, Any]) -> str:
    with pytest.raises(Failure) as caught:
        experiment(contender)
    return caught.value.text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"provider": "rehearsal", "base_url": "http://x/v1"}, "leave base_url out"),
        ({"provider": "rehearsal", "batch": False}, "always answers in batches"),
        ({"rehearsal": {}}, "only with provider: rehearsal"),
        ({"provider": "azure"}, "provider: unknown provider; known: openai, rehearsal."),
        ({"epochs": 0}, "epochs"),
        ({"base_url": "llm.example/v1"}, "must be http(s)://"),
        ({"base_url": "http://user:secret@llm.example/v1"}, "must be http(s)://"),
        ({"base_url": "https://llm.example/v1?key=secret"}, "must be http(s)://"),
    ],
)
def test_invalid_contender_is_refused_without_repeating_a_secret_of_its_url(
    more: dict[str, Any], words: str
) -> None:
    message = problems({**HOSTED, **more})
    assert words in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "address", ["https://llm.example/v1", "http://127.0.0.1:8321/v1", "http://[::1]:8321/v1", "http://llm"]
)
def test_service_urls_are_accepted(address: str) -> None:
    assert experiment({**HOSTED, "base_url": address}).contenders[0].model == "gpt-4o-mini"


def test_prompted_contender_with_a_provider_is_hosted() -> None:
    made = experiment(
        {"name": "few", "kind": "prompted", "provider": "openai", "model": "gpt-4.1", "shots": 3}
    )
    assert isinstance(made.contenders[0], HostedPromptedContender)
    stages = {stage.name for stage in plan(made, resolve(made).lock).stages}
    assert stages == {"prepare", "predict-few", "score-few", "report"}


def test_rehearsal_shares_the_fetch_of_its_stand_in() -> None:
    rehearsed = {**HOSTED, "provider": "rehearsal", "rehearsal": {"stand_in": "random-llama"}}
    made = experiment(rehearsed, {"name": "open", "kind": "prompted", "model": "random-llama"})
    planned = plan(made, resolve(made).lock)
    names = [stage.name for stage in planned.stages]
    assert names.count("fetch-hosted") == 1
    assert "fetch-open" not in names
    predict = planned.stage("predict-hosted-s1")
    assert predict.needs == {"data": "prepare", "model": "fetch-hosted", "tuned": "tune-hosted-s1"}
    assert predict.settings["batch"] is True


def test_plan_contains_no_path_of_a_stand_in_directory(tmp_path: Path) -> None:
    directory = tmp_path / "secret-place"
    directory.mkdir()
    create(RandomModel(), directory)
    rehearsed = {**HOSTED, "provider": "rehearsal", "rehearsal": {"stand_in": str(directory)}}
    resolution = resolve(experiment(rehearsed))
    planned = plan(resolution.experiment, resolution.lock)
    assert b"secret-place" not in planned.to_bytes()
    assert planned.stage("report").settings["contenders"][0]["rehearsed_by"].startswith("directory-")


def test_demo_trains_rehearsed_and_open_model_equally() -> None:
    demo = load("sql", profile="demo")
    lora = next(one for one in demo.contenders if isinstance(one, LoraContender))
    hosted = next(one for one in demo.contenders if isinstance(one, HostedContender))
    assert hosted.rehearsed is not None
    assert demo.data.train_rows is not None
    assert isinstance(hosted.epochs, int)
    assert isinstance(hosted.batch_rows, int)
    rehearsed = train_settings(
        Recipe.of(hosted.rehearsed),
        examples=demo.data.train_rows,
        epochs=hosted.epochs,
        batch_rows=hosted.batch_rows,
        multiplier=1.0,
        seed=demo.seeds[0],
    )
    assert rehearsed.lora == lora.lora
    assert rehearsed.training == lora.training
    assert (rehearsed.threads, rehearsed.prompt) == (lora.hardware.threads, lora.prompt)
    assert hosted.rehearsed.stand_in == lora.model
    assert (hosted.rehearsed.answer_rows, hosted.max_new_tokens) == (
        lora.generation.batch_rows,
        lora.generation.max_new_tokens,
    )
