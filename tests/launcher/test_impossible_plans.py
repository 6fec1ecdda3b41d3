"""Impossible plans are rejected by plan, render and submit, on either target."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli.main import main
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.resolve.resolver import resolve
from launcher.runs.preflight import require_possible
from launcher.runs.submission import continue_run
from launcher.spec import site
from launcher.spec.loading import load
from launcher.spec.placement import placed
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.store import DirectoryStore
from launcher.targets.cluster.client import Cluster
from launcher.targets.runner import Runner, make_target

REFUSED = DISPOSITIONS[Reason.UNSUPPORTED].exit_code
STUDY = {
    "name": "study",
    "task": "sql",
    "data": {"train_rows": 8, "validation_rows": 0, "test_rows": 4},
    "contenders": [
        {
            "name": "open",
            "kind": "lora",
            "model": f"codellama/CodeLlama-34b-hf@{'c' * 40}",
            "hardware": {"device": "NVIDIA-A40"},
            "training": {"quantization": "int8"},
            "generation": {"quantization": "int8"},
        },
        {"name": "hosted", "kind": "hosted", "model": "gpt-ours"},
    ],
}
PRICES = {
    "training": 1.0,
    "tuned_input": 1.0,
    "tuned_output": 1.0,
    "source": "a test",
    "date": date(2026, 1, 1),
}
SITE = {
    "namespace": "tuning",
    "store": {"inside": "s3://runs/tuneyard"},
    "images": {name: f"r.example/{name}@sha256:{'0' * 64}" for name in ("trainer", "worker", "conductor")},
    "secrets": {"openai_api_key": {"secret": "openai", "key": "key"}},
    "hosted_per_million_tokens_usd": [
        {"model": "gpt-ours", **PRICES},
        {"model": "gpt-gone", **PRICES, "shut_down": date(2024, 1, 1)},
    ],
}
#: --set -> part of the message, and the option that the next step names.
IMPOSSIBLE = {
    "contenders[open].hardware.device=A100x": ("unknown device", "contenders[open].hardware.device="),
    "contenders[open].training.quantization=none": ("needs about", "contenders[open].training.quantization="),
    "contenders[hosted].model=gpt-gone": (
        "was shut down on 2024-01-01",
        "contenders[hosted].provider=rehearsal",
    ),
    "contenders[hosted].model=gpt-unknown": ("no price of training", "contenders[hosted].provider=rehearsal"),
}


class Bucket(DirectoryStore):
    """A store that pods can reach, by its name."""

    @property
    def address(self) -> str:
        return "s3://runs/tuneyard"


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))
    for name in ("TUNEYARD_STORE", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "one")
    monkeypatch.chdir(tmp_path)

    def call(verb: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["launcher", verb, *arguments, "--site", "site.yaml"])
        code = main()
        return (code, *capsys.readouterr())

    return call


def made(tmp_path: Path, *sets: str) -> Plan:
    resolution = resolve(load(str(tmp_path / "study.yaml"), sets=sets))
    return plan(resolution.experiment, resolution.lock)


@pytest.mark.parametrize("verb", ["plan", "render"])
@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_impossible_plan_is_neither_planned_nor_rendered(run: Any, verb: str, change: str) -> None:
    what, option = IMPOSSIBLE[change]
    code, out, err = run(verb, "study.yaml", "--set", change)
    assert code == REFUSED
    assert what in err
    assert option in err.rpartition("next: ")[2]
    assert verb == "plan" or out == ""


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_neither_target_accepts_an_impossible_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(Cluster, "connect", lambda *_: pytest.fail("no cluster needs to be asked"))
    facts, one = site.load(tmp_path / "site.yaml"), made(tmp_path, change)
    failures = []
    for name in ("local", "cluster"):
        runner = Runner(make_target(name, facts, say=print))
        submission = continue_run(one, Bucket(tmp_path / "store"), target=name, site=facts)
        with pytest.raises(Failure) as caught:
            runner.submit(submission)
        failures.append(caught.value)
    what, option = IMPOSSIBLE[change]
    for failure in failures:
        assert what in failure.text()
        assert option in failure.next_step
    # This machine has more to say: it has no GPU.
    assert set(failures[1].problems) <= set(failures[0].problems)


def test_possible_plan_is_planned_and_rendered(run: Any) -> None:
    assert run("plan", "study.yaml")[0] == 0
    assert run("render", "study.yaml")[0] == 0


def test_next_step_of_a_shut_down_model_works(run: Any) -> None:
    for verb in ("plan", "render"):
        code, _, err = run(
            verb,
            "study.yaml",
            *("--set", "contenders[hosted].model=gpt-gone"),
            *("--set", "contenders[hosted].provider=rehearsal"),
        )
        assert code == 0, err


def test_shared_problem_is_one_line(run: Any) -> None:
    _, _, err = run("plan", "study.yaml", "--set", "contenders[hosted].model=gpt-gone")
    assert err.count("was shut down") == 1
    assert "  tune-hosted-s1, predict-hosted-s1: 'gpt-gone' was shut down" in err


def test_finished_stages_are_not_checked(run: Any, tmp_path: Path) -> None:
    """The model was tuned and asked before it was shut down: what is left can be done."""
    one, store = made(tmp_path, "contenders[hosted].model=gpt-gone"), DirectoryStore(tmp_path / "store")
    prices = site.load(tmp_path / "site.yaml").prices()
    for name in ("tune-hosted-s1", "predict-hosted-s1"):
        with pytest.raises(Failure, match="cannot be carried out"):
            require_possible(one, store, prices)
        directory = tmp_path / name
        directory.mkdir()
        store.commit(f"stages/{one.stage(name).key}", directory, {})
    require_possible(one, store, prices)
    shown = run(
        "plan", "study.yaml", "--set", "contenders[hosted].model=gpt-gone", "--store", str(tmp_path / "store")
    )
    assert shown[0] == 0


def test_cost_estimate_names_missing_stages(run: Any) -> None:
    """Answering has no estimate on a GPU."""
    _, out, _ = run("plan", "study.yaml")
    (line,) = (line for line in out.splitlines() if line.startswith("estimated cost"))
    assert line.startswith("estimated cost $")
    assert line.endswith(" without predict-open-s1: no estimate")


def test_unknown_cost_is_stated(run: Any) -> None:
    h100 = "contenders[open].hardware.device=NVIDIA-H100-80GB-HBM3"
    rehearsed = "contenders[hosted].provider=rehearsal"
    _, out, _ = run("plan", "study.yaml", "--set", h100, "--set", rehearsed)
    assert "estimated cost: no estimate for train-open-s1, predict-open-s1\n" in out


def test_invalid_placement_does_not_suggest_plan_with_a_run_id(run: Any, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        placed(made(tmp_path), ("contenders[open].hardware.threads=0",))
    assert "contenders[0].hardware.threads" in caught.value.text()
    assert "launcher plan" not in caught.value.next_step
    code, _, err = run("plan", "study.yaml", "--set", "contenders[open].hardware.threads=0")
    assert code == DISPOSITIONS[Reason.BAD_EXPERIMENT].exit_code
    assert "next: correct what is listed, then launcher plan study.yaml" in err


def test_unreachable_store_prints_no_partial_plan(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(*_: Any) -> bool:
        raise Failure(Reason.NETWORK, "no answer")

    monkeypatch.setattr(DirectoryStore, "exists", exists)
    code, out, _ = run("plan", "study.yaml")
    assert code == DISPOSITIONS[Reason.NETWORK].exit_code
    assert out == ""
