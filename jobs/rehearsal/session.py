"""The hosted service of one stage: the provider's, or a rehearsal server that runs as long as the stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.hosted.client import EMBEDDED_RETRY_POLICY, Service, provider_connection, retry_policy
from jobs.hosted.journal import DirectoryJournal, Journal, StoreJournal
from jobs.rehearsal.embedded import EmbeddedServer
from jobs.stage import StageContext, Stopped
from launcher.spec.providers import stage_provider
from launcher.spec.stages import HostedPredictSettings, TuneSettings


@contextmanager
def open_service(
    context: StageContext,
    settings: TuneSettings | HostedPredictSettings,
    *,
    journal_name: str,
    initial: Path | None = None,
) -> Iterator[tuple[Service, Journal, EmbeddedServer | None]]:
    """The service to call, its journal and, for a rehearsal, the embedded server.

    A rehearsal starts from the newest snapshot of this stage, else from the state in `initial`. If the stage
    is stopped, the server's state is saved before `Stopped` is raised again.
    """
    provider = stage_provider(settings.provider, rehearsed=settings.rehearsal is not None)
    if settings.rehearsal is None:
        connection = provider_connection(provider, settings.base_url)
        service = Service(
            connection, context.check_stop, retry_policy(settings.base_url), check_lease=context.check_lease
        )
        yield service, StoreJournal(context), None
        return
    embedded = EmbeddedServer(context, provider, settings.rehearsal, settings.model)
    embedded.restore(initial)
    try:
        with embedded.running() as connection:
            journal = DirectoryJournal(embedded.directory / "notes" / journal_name)
            yield Service(connection, context.check_stop, EMBEDDED_RETRY_POLICY), journal, embedded
    except Stopped:
        # The server has written its checkpoint and ended.
        embedded.save()
        raise
