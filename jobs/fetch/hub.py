"""Source `hub`: models and data sets from the Hugging Face hub (or HF_ENDPOINT), at a pinned commit.

The library reads the access token from HF_TOKEN. It is never printed.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jobs.fetch.model_files import MODEL_PATTERNS
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason
from launcher.spec.stages import HubData, HubModel

_POLL_S = 1.0


def fetch_model(source: HubModel, context: StageContext) -> None:
    """Download config, tokenizer and safetensors files; never pickles or code."""
    _snapshot(source.repository, "model", source.revision, MODEL_PATTERNS, context)


def fetch_data(source: HubData, context: StageContext) -> None:
    """Download the named files under their own names. Raises Failure(MISSING_INPUT) with all missing ones."""
    _snapshot(source.repository, "dataset", source.revision, source.files, context)
    missing = tuple(name for name in source.files if not (context.out / name).is_file())
    if missing:
        raise Failure(
            Reason.MISSING_INPUT,
            f"the data set lacks {len(missing)} of its {len(source.files)} files",
            where=_where(source.repository, source.revision),
            problems=missing,
        )


def _snapshot(
    repository: str, kind: str, revision: str, patterns: tuple[str, ...], context: StageContext
) -> None:
    """Download the files that match `patterns` into `context.out`."""
    # The library reads these when it is imported.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import HfApi, snapshot_download

    work = context.scratch / "hub"

    def download() -> None:
        snapshot_download(
            repository, repo_type=kind, revision=revision, allow_patterns=list(patterns), local_dir=work
        )

    with _translated_errors(repository, kind, revision):
        info: Any = HfApi().repo_info(repository, repo_type=kind, revision=revision, files_metadata=True)
        wanted = [f for f in info.siblings or () if any(fnmatch(f.rfilename, p) for p in patterns)]
        _download(download, work, sum(file.size or 0 for file in wanted), context)
    shutil.rmtree(work / ".cache", ignore_errors=True)
    for path in sorted(work.iterdir()) if work.is_dir() else ():
        path.rename(context.out / path.name)


def _download(download: Callable[[], Any], work: Path, total_bytes: int, context: StageContext) -> None:
    """Run `download` in a daemon thread, which a stop abandons, with heartbeats by the size of `work`."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            download()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    total_mib = max(1, total_bytes >> 20)
    while thread.is_alive():
        thread.join(_POLL_S)
        context.check_stop()
        context.heartbeat(min(total_mib, _size_bytes(work) >> 20), total_mib, "MiB")
    if raised:
        raise raised[0]


def _size_bytes(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # renamed when its download finished
            size += path.lstat().st_size
    return size


def _where(repository: str, revision: str) -> str:
    return f"{repository}@{revision[:12]}"


@contextmanager
def _translated_errors(repository: str, kind: str, revision: str) -> Iterator[None]:
    """Raise the library's errors as Failures whose text holds no header and no token."""
    from huggingface_hub import errors

    where = _where(repository, revision)
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of its HTTP library
    try:
        yield
    except errors.GatedRepoError:
        raise Failure(
            Reason.NO_SUCH_MODEL,
            f"the {kind} is gated, and the token in HF_TOKEN has no access (or there is none)",
            where=where,
            next_step="request access on the hub, set HF_TOKEN, then launcher retry RUN",
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        missing = "revision" if isinstance(error, errors.RevisionNotFoundError) else kind
        raise Failure(
            Reason.NO_SUCH_MODEL, f"the hub has no such {missing} (a private one needs HF_TOKEN)", where=where
        ) from None
    except (transport_error, errors.LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Failure(
            Reason.NETWORK, f"the hub did not deliver the {kind} ({type(error).__name__})", where=where
        ) from None
