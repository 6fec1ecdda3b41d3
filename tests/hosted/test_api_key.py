"""The API key of a provider comes from a variable or from a mounted file."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.hosted.client import provider_connection
from launcher.outcome import Failure, Reason
from launcher.spec.providers import DEFAULT_PROVIDER, providers

PROVIDER = providers()[DEFAULT_PROVIDER]
KEY_VARIABLE, KEY_FILE_VARIABLE = "OPENAI_API_KEY", "OPENAI_API_KEY_FILE"


def test_key_file_is_read_if_the_variable_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api_key").write_text("sk-mounted\n")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "api_key"))
    assert provider_connection(PROVIDER).api_key == "sk-mounted"
    monkeypatch.setenv(KEY_VARIABLE, "sk-set")
    assert provider_connection(PROVIDER).api_key == "sk-set"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_key_file_without_a_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes | None
) -> None:
    path = tmp_path / "api_key"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(path))
    with pytest.raises(Failure) as caught:
        provider_connection(PROVIDER)
    assert caught.value.reason is Reason.UNAUTHORIZED
