"""A site file holds names, never values, and images by digest only."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from launcher.outcome import Failure, Reason
from launcher.spec import site
from launcher.spec.catalog import prices
from launcher.store.selection import open_named_store

DIGEST = "sha256:" + "a" * 64
GOOD = f"""
format: 1
namespace: tuning
store: {{outside: /data/store, inside: "s3://runs/tuneyard"}}
images:
  trainer: registry.example:5000/team/trainer@{DIGEST}
secrets:
  hub_token: {{secret: hub, key: token}}
pull_secrets: [registry]
gpu_hour_usd:
  - {{device: NVIDIA-A40, usd: 0.3, source: our own bill, date: 2026-07-01}}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, text: str) -> Failure:
    with pytest.raises(Failure) as caught:
        site.load(write(path / "site.yaml", text))
    assert caught.value.reason is Reason.BAD_EXPERIMENT
    assert caught.value.where == str(path / "site.yaml")
    return caught.value


@pytest.fixture(autouse=True)
def no_default_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_good_site_file_is_read(tmp_path: Path) -> None:
    loaded = site.load(write(tmp_path / "site.yaml", GOOD))
    assert loaded.namespace == "tuning"
    assert loaded.secrets.hub_token is not None
    assert (loaded.secrets.hub_token.secret, loaded.secrets.hub_token.key) == ("hub", "token")
    assert loaded.gpu_hour_usd[0].date == date(2026, 7, 1)


def test_a_laptop_needs_no_site_file(tmp_path: Path) -> None:
    assert site.load(None) == site.Site()
    (tmp_path / "empty.yaml").write_text("")
    assert site.load(tmp_path / "empty.yaml") == site.Site()


def test_the_default_file_is_found_and_names_the_store(tmp_path: Path) -> None:
    (tmp_path / "config" / "tuneyard").mkdir(parents=True)
    write(tmp_path / "config" / "tuneyard" / "site.yaml", f"store: {{outside: {tmp_path / 'mine'}}}\n")
    assert open_named_store(None, None).root == tmp_path / "mine"
    assert open_named_store(str(tmp_path / "named"), None).root == tmp_path / "named"


@pytest.mark.parametrize(
    "image",
    [
        "trainer",
        "trainer:latest",
        "registry.example/trainer:1.2",
        "trainer@sha256:abc",
        f"trainer@{DIGEST}\n",
        f"trainer@{DIGEST.upper()}",
        f"@{DIGEST}",
    ],
)
def test_an_image_is_named_by_digest_or_refused(tmp_path: Path, image: str) -> None:
    failure = refused(tmp_path, f"images: {{worker: {image!r}}}\n".replace("'", '"'))
    assert failure.problems[0].startswith("images.worker: ")


@pytest.mark.parametrize(
    "secret",
    [
        "hf_PastedByMistake",
        "{secret: hf_PastedByMistake, key: token}",
        "{secret: hub, key: token, value: hf_PastedByMistake}",
        "{secret: {value: hf_PastedByMistake}, key: token}",
        "[hf_PastedByMistake]",
    ],
)
def test_a_secrets_value_has_no_place_and_is_not_repeated_in_the_error(tmp_path: Path, secret: str) -> None:
    failure = refused(tmp_path, f"secrets: {{hub_token: {secret}}}\n")
    assert "hf_PastedByMistake" not in failure.text()
    assert "secrets.hub_token" in failure.text()


def test_every_problem_is_listed_with_its_path(tmp_path: Path) -> None:
    failure = refused(
        tmp_path,
        "namespce: x\nimages: {trainer: a}\ngpu_hour_usd: [{device: 3, usd: -1, source: s, date: soon}]\n",
    )
    assert {problem.partition(": ")[0] for problem in failure.problems} == {
        "namespce",
        "images.trainer",
        "gpu_hour_usd[0].device",
        "gpu_hour_usd[0].usd",
        "gpu_hour_usd[0].date",
    }


@pytest.mark.parametrize("text", ["a: [", "- 1", "text", "false", "[]", "a: 1\na: 2", "format: 2"])
def test_a_malformed_site_file_is_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_a_missing_named_site_file_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        site.load(tmp_path / "none.yaml")
    assert caught.value.reason is Reason.MISSING_INPUT


def test_a_sites_own_price_wins_over_the_catalogues(tmp_path: Path) -> None:
    own = site.load(write(tmp_path / "site.yaml", GOOD)).gpu_hour_usd
    extended = prices().extended(own)
    price = extended.gpu("NVIDIA-A40")
    assert price is not None
    assert (price.usd, price.source) == (0.3, "our own bill")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("namespace: Team_A", "namespace: at most 63 of a-z"),
        ("queue: a.b", "queue: at most 63 of a-z"),
        ("cache_claim: a..b", "cache_claim: the name of a Secret or other object"),
        ("pull_secrets: [registry, Mirror]", "pull_secrets[1]: the name of a Secret or other object"),
        ("secrets: {hub_token: {secret: hub, key: ../token}}", "secrets.hub_token.key: String should match"),
        ("service_account: {create: false}", "service_account: name one with create: false"),
        ("service_account: {name: theirs}", "service_account: name one with create: false"),
        ("start_timeout_s: 0", "start_timeout_s: Input should be greater"),
    ],
)
def test_names_that_kubernetes_would_reject_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in "\n".join(refused(tmp_path, text).problems)


def test_an_existing_service_account_is_used_and_none_is_created(tmp_path: Path) -> None:
    text = "service_account: {create: false, name: theirs, create_role: false, stages: store-user}"
    account = site.load(write(tmp_path / "site.yaml", text)).service_account
    assert (account.create, account.name, account.create_role) == (False, "theirs", False)
    assert account.stages == "store-user"
