"""A small YAML file cannot expand to a large one."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
from launching import Launcher

#: Enough to start and to read any honest file.
_MEMORY_BYTES = 3 << 30


def bomb(levels: int, ending: str) -> str:
    """Nine to the power of `levels` mappings in a kilobyte of text."""
    lines = ["x-0: &l0 {a: 1, b: 2}"]
    for level in range(1, levels):
        entries = ", ".join(f"k{n}: *l{level - 1}" for n in range(9))
        lines.append(f"x-{level}: &l{level} {{{entries}}}")
    return "\n".join([*lines, ending.replace("BOMB", f"*l{levels - 1}")]) + "\n"


@pytest.mark.parametrize(
    "ending",
    [
        "format: 1\nname: bomb\ntask: sql\ncontenders: [BOMB]",
        "format: 1\nname: bomb\ntask: sql\ndata: BOMB\ncontenders: []\ndefault_profile: p\nprofiles: {p: {data: BOMB}}",
    ],
    ids=["contenders", "profile"],
)
def test_an_experiment_with_nested_aliases_is_refused_at_once(
    ending: str, launcher: Launcher, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb(9, ending))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))

    done = subprocess.run(
        launcher.command("plan", str(path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=launcher.environment,
        preexec_fn=limit,
    )
    assert done.returncode == 10, done.stderr[-300:]
    assert "aliases" in done.stderr
    assert len(done.stderr) < 10_000
