"""`launcher render`, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from render_scenarios import experiment, hosted_only, image, make_site, parse_all

from launcher.cli.render import command
from launcher.manifests.render import render
from launcher.outcome import Failure, Reason
from launcher.spec.lock import Lock, LockedModel
from launcher.spec.planner import plan
from launcher.spec.stages import RandomModel

Invoke = Callable[..., Result]


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(make_site().model_dump(mode="json", exclude_defaults=True)))
    return path


@pytest.fixture
def invoke(site_file: Path) -> Invoke:
    def run(*arguments: str, site: Path | None = site_file) -> Result:
        named = ["--site", str(site)] if site else []
        done = CliRunner().invoke(
            command, ["sql", "--profile", "smoke", *named, *arguments], standalone_mode=False
        )
        if isinstance(done.exception, Failure):
            raise done.exception
        return done

    return run


def test_stdout_has_only_the_objects(invoke: Invoke) -> None:
    done = invoke()
    kinds = [item["kind"] for item in parse_all(done.stdout)]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Job"]
    assert done.stderr == ""
    assert invoke().stdout == done.stdout


def test_directory_has_a_file_per_object_and_a_kustomization(invoke: Invoke, tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "sql"
    done = invoke("-o", str(directory))
    assert done.stdout == ""
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Kustomization"
    written = [yaml.safe_load((directory / name).read_text()) for name in kustomization["resources"]]
    assert written == parse_all(invoke().stdout)
    assert {path.name for path in directory.iterdir()} == {*kustomization["resources"], "kustomization.yaml"}


def test_rerendering_removes_stale_services(invoke: Invoke, tmp_path: Path) -> None:
    directory = tmp_path / "sql"
    sets = [f"--set=contenders[lora].hardware.{key}" for key in ("device=NVIDIA-A40", "nodes=2")]
    invoke(*sets, "-o", str(directory))
    assert (directory / "service-train-lora-s1.yaml").exists()
    (directory / "note.md").write_text("ours")
    invoke("-o", str(directory))
    assert not (directory / "service-train-lora-s1.yaml").exists()
    assert (directory / "note.md").exists()


def test_foreign_files_are_neither_overwritten_nor_removed(invoke: Invoke, tmp_path: Path) -> None:
    directory = tmp_path / "apps"
    directory.mkdir()
    theirs = {
        "service-web.yaml": "kind: Service",
        "kustomization.yaml": "resources: []",
        "job.yaml": "kind: Job",
    }
    for name, text in theirs.items():
        (directory / name).write_text(text)
    with pytest.raises(Failure) as caught:
        invoke("-o", str(directory))
    assert caught.value.problems == ("job.yaml", "kustomization.yaml")
    assert {path.name: path.read_text() for path in directory.iterdir()} == theirs


def test_rerendering_removes_objects_that_the_site_no_longer_needs(invoke: Invoke, tmp_path: Path) -> None:
    directory = tmp_path / "sql"
    invoke("-o", str(directory))
    assert (directory / "role.yaml").exists()
    kustomization = directory / "kustomization.yaml"
    # A person may add what is not ours to take away.
    kustomization.write_text(kustomization.read_text() + "- ../secret.yaml\n- note.yaml\n")
    (directory / "note.yaml").write_text("ours")
    (tmp_path / "secret.yaml").write_text("ours")
    given = make_site(service_account={"create": False, "create_role": False, "name": "conductors"})
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(given.model_dump(mode="json", exclude_defaults=True)))
    invoke("-o", str(directory), site=path)
    left = {path.name for path in directory.iterdir()}
    assert left == {"configmap.yaml", "job.yaml", "kustomization.yaml", "note.yaml"}
    assert (tmp_path / "secret.yaml").exists()


def test_values_are_printed_as_json(invoke: Invoke) -> None:
    values = json.loads(invoke("--values").stdout)
    assert values["run"]["id"].startswith("sql-")
    assert json.loads(values["plan"])["run_id"] == values["run"]["id"]


def test_values_with_an_overlay_is_a_usage_error(invoke: Invoke, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("spec: {priorityClassName: low}")
    assert "leave out --overlay" in str(invoke("--values", "--overlay", str(overlay)).exception)


def test_overlay_file_reaches_the_pods(invoke: Invoke, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("stages: {spec: {priorityClassName: batch}}")
    objects = parse_all(invoke("--overlay", str(overlay)).stdout)
    data = next(item for item in objects if item["kind"] == "ConfigMap")["data"]
    jobs = [json.loads(text) for key, text in data.items() if key.startswith("job-")]
    assert {job["spec"]["template"]["spec"]["priorityClassName"] for job in jobs} == {"batch"}


def test_attempt_option_changes_the_manifests(invoke: Invoke) -> None:
    job = parse_all(invoke("--attempt", "3").stdout)[-1]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--attempt") + 1] == "3"
    assert job["metadata"]["labels"]["tuneyard.dev/attempt"] == "3"


def test_incomplete_site_lists_everything_with_an_example(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(Failure) as caught:
        invoke(site=None)
    text = caught.value.text()
    for part in ("namespace:", "store.inside:", "images.trainer:", "images.worker:", "images.conductor:"):
        assert part in text
    assert "train-lora-s1" in text
    assert "for example\n" in text
    assert caught.value.reason is Reason.BAD_EXPERIMENT


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"store": {"inside": "file:///data"}}, "store.inside: must be s3://"),
        (
            {"store": {"inside": "s3://UPPER/x?regionn=a"}},
            "store.inside: the bucket's name is not one",
        ),
        ({"store": {"inside": "s3://runs/x?profile=admin"}}, "store.inside: profile: pods have no profiles"),
        (
            {"secrets": {"store_access_key": {"secret": "s", "key": "k"}}},
            "set both store_access_key and store_secret_key, or neither",
        ),
        ({"images": {"worker": image("w"), "conductor": image("c")}}, "images.trainer: not set; needed by"),
    ],
    ids=["directory", "no bucket", "profile", "half a credential", "no trainer"],
)
def test_unsuitable_site_is_rejected(
    invoke: Invoke, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(make_site(**changes).model_dump(mode="json", exclude_defaults=True)))
    with pytest.raises(Failure) as caught:
        invoke(site=path)
    assert problem in caught.value.text()


def test_hosted_contender_needs_the_key_in_the_site() -> None:
    with pytest.raises(Failure) as caught:
        render(hosted_only(), make_site(secrets={}))
    assert caught.value.problems == (
        "secrets.openai_api_key: not set; needed by tune-gpt35-s1, predict-gpt35-s1",
    )


def test_too_long_job_names_are_rejected() -> None:
    contender = {"name": "abcdefghijkl", "kind": "hosted", "model": "gpt-3.5-turbo-0613"}
    made = plan(experiment(contender, name="a" * 16, seeds=[2**32 - 1]), Lock())
    with pytest.raises(Failure, match="the run cannot be rendered for this site") as caught:
        render(made, make_site())
    assert "predict-abcdefghijkl-s4294967295: its Job's name is 8 characters too long" in str(
        caught.value.problems
    )


def test_service_name_must_begin_with_a_letter() -> None:
    hardware = {"device": "NVIDIA-A40", "nodes": 2}
    contender = {"name": "lora", "kind": "lora", "model": "random-llama", "hardware": hardware}
    lock = Lock(models={"random-llama": LockedModel(source=RandomModel())})
    made = plan(experiment(contender, name="7b-vs-gpt"), lock)
    with pytest.raises(Failure, match="the run cannot be rendered for this site") as caught:
        render(made, make_site())
    assert "its Service's name must begin with a letter" in str(caught.value.problems)


def test_plan_over_the_config_map_limit_is_rejected() -> None:
    contender = {"name": "gpt35", "kind": "hosted", "model": "gpt-3.5-turbo-0613"}
    made = plan(experiment(contender, seeds=list(range(40))), Lock())
    with pytest.raises(Failure, match="the limit for a ConfigMap is 240 KiB"):
        render(made, make_site())


@pytest.mark.parametrize(
    "inside",
    [
        "s3://runs/x?secret_key=SUPERSECRET",
        "s3://AKIA:SUPERSECRET@runs/x",
        "s3://runs/x?endpoint_url=https://user:SUPERSECRET@host",
    ],
)
def test_secret_in_the_store_address_is_rejected_without_repeating_it(
    invoke: Invoke, tmp_path: Path, inside: str
) -> None:
    path = tmp_path / "other.yaml"
    given = make_site(store={"inside": inside})
    path.write_text(yaml.safe_dump(given.model_dump(mode="json", exclude_defaults=True)))
    with pytest.raises(Failure) as caught:
        invoke(site=path)
    assert "store.inside: " in caught.value.text()
    assert "SUPERSECRET" not in caught.value.text()


def test_secret_in_the_site_is_rejected_without_repeating_it(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("namespace: tuning\nsecrets: {openai_api_key: sk-12345}\n")
    with pytest.raises(Failure) as caught:
        invoke(site=path)
    assert "sk-12345" not in caught.value.text()
