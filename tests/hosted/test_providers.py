"""Providers are entries of the catalogue: a further one needs no code, and stage keys do not depend on the move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai.resources.fine_tuning.jobs import Jobs
from serving import MODEL, Server
from staging import TEST_ROWS, Study, study

from jobs.hosted.client import RetryPolicy
from jobs.rehearsal import session
from launcher.costs.hosted import hosted_problem
from launcher.manifests.render import render
from launcher.outcome import Failure
from launcher.resolve.resolver import resolve
from launcher.runs.preflight import require_this_machine
from launcher.spec import providers
from launcher.spec.catalog import HostedPrice, prices
from launcher.spec.loading import validate
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.site import Site
from launcher.spec.stages import TuneSettings
from launcher.targets.local.environment import stage_environment

KEY = "sk-test-one"
#: The providers of the catalogue, without those that a test adds.
KNOWN = tuple(providers.providers())
TUNED = {"name": "hosted", "kind": "hosted", "model": "gpt-4o-mini"}
POLICY = RetryPolicy(
    tries=3, first_wait_s=0.02, longest_wait_s=1.0, timeout_s=30.0, settle_s=0.05, poll_s=0.05
)


def further_provider(base_url: str) -> dict[str, Any]:
    """An entry in the style of services that take top-level hyperparameters."""
    limits = {"upload_bytes": 5 << 30, "examples": 12, "batch_requests": 3, "batch_bytes": 1 << 20}
    return {
        "base_url": base_url,
        "key_variable": "FACTORY_API_KEY",
        "key_file_variable": "FACTORY_API_KEY_FILE",
        "hyperparameters": "top-level",
        "model_pattern": r"(gpt-3\.5-turbo|meta-llama/).*",
        "tuning_closes": date(2030, 1, 1),
        "limits": {**limits, "example_tokens": 8192},
        "source": "the provider's documentation",
        "date": date(2026, 11, 1),
    }


@pytest.fixture
def add_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Adds a provider to a copy of the catalogue."""
    catalogue = tmp_path / "providers.yaml"

    original = yaml.safe_load(providers.CATALOG.read_text())

    def add(base_url: str = "https://factory.example/v1", *, name: str = "factory", **changes: Any) -> None:
        catalogue.write_text(yaml.safe_dump({**original, name: {**further_provider(base_url), **changes}}))
        monkeypatch.setattr(providers, "CATALOG", catalogue)
        providers.providers.cache_clear()

    yield add
    providers.providers.cache_clear()


def planned(*contenders: dict[str, Any]) -> Plan:
    experiment = validate({"name": "settings", "task": "sql", "contenders": list(contenders)}, where="test")
    resolution = resolve(experiment)
    return plan(resolution.experiment, resolution.lock)


def problem(contender: dict[str, Any]) -> str:
    with pytest.raises(Failure) as caught:
        planned(contender)
    return caught.value.text()


@pytest.mark.parametrize(
    ("name", "contender"),
    [
        ("hosted default", TUNED),
        ("hosted base_url", {**TUNED, "base_url": "https://llm.example/v1", "epochs": 3, "batch": True}),
        (
            "hosted rehearsal",
            {**TUNED, "model": "m", "provider": "rehearsal", "rehearsal": {"stand_in": "random-llama"}},
        ),
        (
            "hosted prompted",
            {"name": "few", "kind": "prompted", "provider": "openai", "model": "gpt-4.1", "shots": 3},
        ),
    ],
)
def test_keys_of_earlier_experiments_are_unchanged(
    name: str, contender: dict[str, Any], check_recorded_keys: Callable[[str, Plan], None]
) -> None:
    made = planned(contender)
    check_recorded_keys(name, made)
    stage = next(stage for stage in made.stages if stage.kind in ("tune", "predict"))
    assert "provider" not in stage.settings


def test_catalogue_has_the_default_and_one_embedded_provider() -> None:
    known = providers.providers()
    assert not known[providers.DEFAULT_PROVIDER].embedded
    assert [name for name, entry in known.items() if entry.embedded] == ["rehearsal"]
    assert all(len(entry.source) > 10 for entry in known.values() if not entry.embedded)
    assert all(date(2023, 1, 1) < entry.date for entry in known.values())


def test_unknown_provider_is_refused_with_the_known_names() -> None:
    message = problem({**TUNED, "provider": "nowhere"})
    assert f"contenders[0].provider: unknown provider; known: {', '.join(sorted(KNOWN))}." in message
    assert "give base_url" in message


def test_plan_with_a_provider_that_is_gone_is_refused(add_provider: Callable[..., None]) -> None:
    add_provider()
    stage = planned({**TUNED, "model": MODEL, "provider": "factory"}).stage("tune-hosted-s1")
    add_provider(name="other")
    with pytest.raises(Failure) as caught:
        stage.typed_settings()
    known = ", ".join(sorted({*KNOWN, "other"}))
    assert f"provider: unknown provider; known: {known}" in caught.value.text()


def tuned_by_factory(root: Path, **changes: Any) -> Study:
    described = {"name": "hosted", "kind": "hosted", "model": MODEL, "provider": "factory", "epochs": 1}
    return study(root, "", described={**described, "batch_rows": 4, **changes})


def test_further_provider_tunes_and_answers_with_top_level_hyperparameters(
    make_server: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    add_provider: Callable[..., None],
) -> None:
    server = make_server()
    add_provider(server.url)
    monkeypatch.setenv("FACTORY_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(session, "retry_policy", lambda _url: POLICY)
    requests: list[dict[str, Any]] = []
    create = Jobs.create
    monkeypatch.setattr(Jobs, "create", lambda self, **body: (requests.append(body), create(self, **body))[1])
    one = tuned_by_factory(tmp_path, batch=True)
    one.tune()
    one.predict()
    (request,) = requests
    assert "method" not in request
    assert request["hyperparameters"]["n_epochs"] == 1
    assert one.plan.stage("tune-hosted-s1").settings["provider"] == "factory"
    assert one.output("tune-hosted-s1", "tuned.json")["model"].startswith(f"ft:{MODEL}:")
    assert len(one.output("predict-hosted-s1", "predictions.jsonl")) == TEST_ROWS
    assert one.output("predict-hosted-s1", "prediction.json")["engine"] == "factory"
    assert server.counters()["batches-created"] == -(-TEST_ROWS // 3), "its limit of requests in a batch"


def test_limits_of_the_provider_are_checked_before_the_upload(
    tmp_path: Path, add_provider: Callable[..., None]
) -> None:
    add_provider(limits={**further_provider("")["limits"], "examples": 17})
    with pytest.raises(Failure) as caught:
        tuned_by_factory(tmp_path).tune()
    assert "at least 17 are needed" in caught.value.text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "gpt-4.1"}, "not a model name of factory"),
        ({"batch": True}, "factory has no Batch API"),
        ({"rehearsal": {}}, "only with provider: rehearsal"),
    ],
)
def test_contender_that_does_not_fit_its_provider_is_refused(
    changes: dict[str, Any], words: str, add_provider: Callable[..., None]
) -> None:
    add_provider(batches=False)
    assert words in problem({**TUNED, "provider": "factory", "model": MODEL, **changes})


def test_missing_key_is_named_by_its_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_provider: Callable[..., None]
) -> None:
    add_provider()
    monkeypatch.delenv("FACTORY_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    one = tuned_by_factory(tmp_path)
    with pytest.raises(Failure) as before:
        require_this_machine(one.plan, one.store)
    with pytest.raises(Failure) as inside:
        one.tune()
    assert "export FACTORY_API_KEY=…" in before.value.text()
    assert "FACTORY_API_KEY is not set" in inside.value.text()


def test_key_of_a_further_provider_reaches_only_tune_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_provider: Callable[..., None]
) -> None:
    add_provider()
    monkeypatch.setenv("FACTORY_API_KEY", KEY)
    one = tuned_by_factory(tmp_path)
    readers = {
        stage.kind
        for stage in one.plan.stages
        if "FACTORY_API_KEY" in stage_environment(stage, one.store.address)
    }
    assert readers == {"tune", "predict"}


def test_pods_of_a_further_provider_get_its_key_under_its_own_variable(
    add_provider: Callable[..., None],
) -> None:
    add_provider()
    made = planned({**TUNED, "model": MODEL, "provider": "factory"})
    image = f"registry.example/image@sha256:{'0' * 64}"
    site = {
        "namespace": "tuning",
        "store": {"inside": "s3://runs/tuneyard?region=eu-west-1"},
        "images": {"worker": image, "conductor": image},
    }
    with pytest.raises(Failure) as caught:
        render(made, Site.model_validate(site))
    wanted = "secrets.provider_api_keys.factory: not set; needed by tune-hosted-s1, predict-hosted-s1"
    assert wanted in caught.value.text()
    secret = {"secret": "factory", "key": "token"}
    rendered = render(
        made, Site.model_validate({**site, "secrets": {"provider_api_keys": {"factory": secret}}})
    )
    pod = rendered.stage_jobs["tune-hosted-s1"]["spec"]["template"]["spec"]
    environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert environment["FACTORY_API_KEY_FILE"] == "/var/run/secrets/tuneyard/openai/api_key"
    assert "OPENAI_API_KEY_FILE" not in environment
    assert {"key": "token", "path": "api_key"} in [
        item for volume in pod["volumes"] for item in volume.get("secret", {}).get("items", [])
    ]


def test_closed_fine_tuning_is_refused_with_its_day() -> None:
    settings = planned(TUNED).stage("tune-hosted-s1").typed_settings()
    assert isinstance(settings, TuneSettings)
    own = HostedPrice(model="gpt-4o-mini", training=3.0, source="our contract", date=date(2026, 10, 1))
    known = prices().extended([], [own])
    assert hosted_problem(settings, prices=known, today=date(2027, 1, 5)) is None
    refused = hosted_problem(settings, prices=known, today=date(2027, 1, 6))
    assert refused is not None
    assert "openai has accepted no fine-tuning job since 2027-01-06" in refused


@pytest.mark.parametrize(
    "changes", [{"key_variable": None}, {"embedded": True}, {"hyperparameters": "nowhere"}, {"base_url": "x"}]
)
def test_catalogue_entry_must_be_complete(changes: dict[str, Any], add_provider: Callable[..., None]) -> None:
    add_provider(**changes)
    with pytest.raises(ValueError, match="factory"):
        providers.providers()
