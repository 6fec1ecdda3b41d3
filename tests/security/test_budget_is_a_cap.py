"""`budget_usd` is a cap on the bill, with several hosted contenders at once, kills, lost responses and two submits."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from billing_service import BillingService, billing
from launching import Launcher, processes_naming

#: Estimated are some 20 tokens an answer; the service writes, and bills, all 256.
CAP_USD = 0.45


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-users-own-key")


def experiment(directory: Path, url: str, budget_usd: float) -> str:
    """Five hosted contenders, two of them tuned, that all answer at `url`."""
    hosted = {"provider": "openai", "base_url": url}
    contenders: list[dict[str, Any]] = [
        {"name": f"asked{n}", "kind": "prompted", "model": "gpt-4.1", "shots": n, **hosted} for n in range(3)
    ]
    contenders += [
        {"name": f"tuned{n}", "kind": "hosted", "model": "gpt-3.5-turbo-0613", "epochs": n, **hosted}
        for n in (1, 2)
    ]
    document = {
        "format": 1,
        "name": "capped",
        "task": "sql",
        "data": {"source": "sample", "train_rows": 16, "validation_rows": 0, "test_rows": 24},
        "contenders": contenders,
        "budget_usd": budget_usd,
    }
    path = directory / "capped.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def options(launcher: Launcher, directory: Path, service: BillingService, path: str) -> list[str]:
    """Options of a submit to the service; with a site file if the launcher sends keys to bound hosts only."""
    site = directory / "site.yaml"
    site.write_text(json.dumps({"provider_urls": [{"provider": "openai", "url": service.url}]}))
    planned = launcher("plan", path, "--site", str(site))
    return ["--target", "local", *(["--site", str(site)] if planned.returncode == 0 else [])]


def test_several_hosted_contenders_are_never_billed_above_the_cap(launcher: Launcher, tmp_path: Path) -> None:
    with billing() as service:
        path = experiment(tmp_path, service.url, CAP_USD)
        given = options(launcher, tmp_path, service, path)
        done = launcher("submit", path, *given)
        assert service.usd <= CAP_USD
        assert done.returncode == 20, done.stdout + done.stderr
        # It is used, too: what would not fit is the last few answers' worst case.
        assert service.usd > 0.7 * CAP_USD
        before = service.completions
        run = launcher.json("list", "-o", "json")[0]["run"]
        retried = launcher("retry", run, "--budget-usd", "2", *given)
        assert retried.returncode == 0, retried.stderr
        assert service.usd <= 2.0
        # Every row of every contender was answered once.
        assert service.completions == 5 * 24 > before
        assert len(service.jobs) == 2


def test_kills_lost_responses_and_a_second_submit_stay_below_the_cap(
    launcher: Launcher, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    with billing(lose_every=11) as service:
        path = experiment(tmp_path, service.url, CAP_USD)
        submit = ["submit", path, *options(launcher, tmp_path, service, path)]
        first = launcher.start(*submit)
        second = launcher.start(*submit)
        for number in (5, 25, 45):
            wait_until(lambda n=number: service.completions >= n or first.poll() is not None, 180)
            kill(launcher.store, "predict")
        wait_until(lambda: service.completions >= 50 or first.poll() is not None, 180)
        kill(launcher.store, "launcher.targets.local")
        first.communicate(timeout=240)
        second.communicate(timeout=240)
        assert service.lost > 2
        assert service.usd <= CAP_USD
        assert first.returncode == second.returncode == 20
        assert len(service.jobs) == 2


def kill(store: Path, word: str) -> None:
    """Kill one process of the run whose command line contains `word`, if there is one."""
    for pid, command in processes_naming(store).items():
        if word in command:
            os.kill(pid, signal.SIGKILL)
            return
