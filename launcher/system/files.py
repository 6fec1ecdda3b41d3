"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    The directory is created if it is missing. Does not sync to disk. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(prefix=".uncommitted-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise


def below(directory: Path, name: str) -> Path:
    """`directory/name`, with its parent directories created. The file itself may be there or not.

    Raises ValueError if the path leaves `directory`, also through a symbolic link that was there before.
    """
    root = directory.resolve()
    target = root / name
    if ".." in target.parts or not target.is_relative_to(root):
        raise ValueError(f"{name!r} is not below {directory}")
    parent = root
    for part in target.relative_to(root).parts[:-1]:
        parent = parent / part
        if parent.is_symlink():
            raise ValueError(f"{parent} is a symbolic link")
    if target.is_symlink():
        raise ValueError(f"{target} is a symbolic link")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
