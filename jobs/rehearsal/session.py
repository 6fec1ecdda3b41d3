"""The hosted service of one stage: the provider's own, or a rehearsal server that lives as long as the stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.hosted.client import LOCAL, Service, outside, patience_of
from jobs.hosted.journal import DirectoryNotes, Notes, StoreNotes
from jobs.rehearsal.embedded import Embedded
from jobs.stage import StageContext, Stopped
from launcher.spec.stages import HostedPredictSettings, TuneSettings


@contextmanager
def service_of(
    context: StageContext,
    settings: TuneSettings | HostedPredictSettings,
    *,
    notes_name: str,
    first: Path | None = None,
) -> Iterator[tuple[Service, Notes, Embedded | None]]:
    """The service to call, its journal and, for a rehearsal, the embedded server.

    A rehearsal starts from the newest snapshot of this stage, else from the state in `first`. If the stage
    is stopped, the server's state is saved before `Stopped` is raised again.
    """
    if settings.rehearsal is None:
        connection = outside(settings.base_url)
        service = Service(connection, context.check_stop, patience_of(settings.base_url))
        yield service, StoreNotes(context), None
        return
    embedded = Embedded(context, settings.rehearsal, settings.model)
    embedded.restore(first)
    try:
        with embedded.running() as connection:
            notes = DirectoryNotes(embedded.directory / "notes" / notes_name)
            yield Service(connection, context.check_stop, LOCAL), notes, embedded
    except Stopped:
        # The server has written its checkpoint and has ended.
        embedded.save()
        raise
