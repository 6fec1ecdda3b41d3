"""Keeps the tests away from their user: home directory, configuration, keys and default store."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

#: Variables that change what the launcher, its clients or a terminal do.
_PREFIXES = ("TUNEYARD", "XDG_", "HF_", "AWS_", "OPENAI_", "HELM_", "KUBE", "HUGGING", "GOOGLE_", "AZURE_")
_NAMES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "PAGER", "EDITOR")
_SECRET_SUFFIXES = ("_API_KEY", "_ACCESS_KEY", "_SECRET", "_SECRET_KEY", "_TOKEN", "_PASSWORD")
#: Variables of the tests themselves: data, caches, programs and the extent of a matrix.
_KEPT_PREFIXES = ("TUNEYARD_TEST_", "TUNEYARD_CLUSTER_", "TUNEYARD_FAULT_")
_KEPT_NAMES = ("DATA", "BUILD_CACHE", "MOTO", "RCLONE", "S5CMD", "VERSITYGW", "OPENAI2_PYTHON")


def isolate(environment: MutableMapping[str, str], home: Path) -> None:
    """Point HOME at `home` and remove the user's settings and keys.

    Caches of tools that the tests share with their user keep their place: the cluster's programs and Go's.
    """
    for name in [name for name in environment if _is_user_setting(name)]:
        del environment[name]
    user_home = Path(environment.get("HOME", "~")).expanduser()
    environment.setdefault("TUNEYARD_BUILD_CACHE", str(user_home / ".cache" / "tuneyard" / "build"))
    environment.setdefault("GOCACHE", str(user_home / ".cache" / "go-build"))
    environment.setdefault("GOPATH", str(user_home / "go"))
    environment["HOME"] = str(home)
    # A stray request to a model hub or to a cloud's metadata server fails at once.
    environment["HF_HUB_OFFLINE"] = "1"
    environment["AWS_EC2_METADATA_DISABLED"] = "true"


def _is_user_setting(name: str) -> bool:
    if name.removeprefix("TUNEYARD_") in _KEPT_NAMES or name.startswith(_KEPT_PREFIXES):
        return False
    return name.startswith(_PREFIXES) or name in _NAMES or name.endswith(_SECRET_SUFFIXES)
