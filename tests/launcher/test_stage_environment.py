"""Which variables of the shell each kind of stage gets."""

from __future__ import annotations

import pytest
from tiny import make_plan

from launcher.targets.local.environment import stage_environment

SHELL = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "hf-…",
    "PIP_INDEX_URL": "https://index.example/simple",
    "OPENAI_API_KEY": "sk-…",
    "AWS_PROFILE": "team",
    "AWS_SECRET_ACCESS_KEY": "…",
    "GITHUB_TOKEN": "ghp-…",
    "MY_PASSWORD": "…",
}
EVERY = {"PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"}


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        ("fetch", {"HF_TOKEN", "PIP_INDEX_URL"}),
        ("prepare", set()),
        ("train", set()),
        ("predict", set()),  # of an open model
        ("score", set()),
        ("report", set()),
    ],
)
@pytest.mark.parametrize("address", ["file:///store", "s3://bucket/prefix"])
def test_each_kind_of_stage_gets_its_own_secrets_only(kind: str, also: set[str], address: str) -> None:
    stage = next(stage for stage in make_plan().stages if stage.kind == kind)
    store = {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY"} if address.startswith("s3:") else set()
    assert stage_environment(stage, address, SHELL).keys() == EVERY | also | store
