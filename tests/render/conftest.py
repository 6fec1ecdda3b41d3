"""Tests render with Helm's SDK unless they choose otherwise, so that every machine renders alike."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_helm_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.manifests import helm

    monkeypatch.delenv("HELM_BIN", raising=False)
    monkeypatch.setattr(helm.shutil, "which", lambda name: None if name == "helm" else _which(name))


def _which(name: str) -> str | None:
    return name if os.access(name, os.X_OK) else None
