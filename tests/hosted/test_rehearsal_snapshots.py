"""State that a rehearsal server restores from an artifact is writable for any user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from staging import study

from jobs.rehearsal.embedded import EmbeddedServer
from launcher.spec.contenders import Rehearsal
from launcher.spec.providers import embedded_provider


def test_state_restored_from_a_read_only_artifact_is_writable(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    (artifact / "jobs" / "ftjob-1").mkdir(parents=True)
    for name in ("rehearsal.sqlite", "jobs/ftjob-1/events", "_SUCCESS.json"):
        (artifact / name).write_text("as it was")
        (artifact / name).chmod(0o444)
    for directory in (artifact / "jobs" / "ftjob-1", artifact / "jobs", artifact):
        directory.chmod(0o555)
    context = study(tmp_path, "http://127.0.0.1:9/v1").context("predict-hosted-s1")
    embedded = EmbeddedServer(
        context, embedded_provider(), Rehearsal(stand_in="random-llama"), "gpt-3.5-turbo-0613"
    )
    embedded.restore(artifact)
    restored = {
        path.relative_to(embedded.directory).as_posix(): path for path in embedded.directory.rglob("*")
    }
    assert set(restored) == {"rehearsal.sqlite", "jobs", "jobs/ftjob-1", "jobs/ftjob-1/events"}
    assert restored["jobs/ftjob-1/events"].read_text() == "as it was"
    for path in (embedded.directory, *restored.values()):
        assert os.stat(path).st_mode & stat.S_IWUSR, path
