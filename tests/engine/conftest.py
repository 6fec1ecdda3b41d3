"""Fixtures: a stage harness, the random model and its tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stage_harness import StageHarness


@pytest.fixture
def harness(tmp_path: Path) -> StageHarness:
    return StageHarness(tmp_path)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the two-layer random model."""
    from jobs.fetch import random_model
    from launcher.spec.stages import RandomModel

    directory = tmp_path_factory.mktemp("random-model")
    random_model.create(RandomModel(), directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(random_model: Path) -> Any:
    from jobs.models.loading import load_tokenizer

    return load_tokenizer(random_model)
