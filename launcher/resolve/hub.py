"""The model hub's API: the commit that a name points at."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.system.text import header_secret

_REVISION = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 10


def commit_of(repository: str, revision: str, kind: str) -> str:
    """The commit that a branch or tag of a hub repository points at now."""
    if _REVISION.fullmatch(revision):
        return revision
    # Imported here: loading HTTP and TLS takes as long as making a plan, and most plans name every commit.
    import http.client
    import urllib.error
    import urllib.request

    where = f"model '{repository}'" if kind == "models" else f"data '{repository}'"
    next_step = f"name a commit ({repository}@<40 hex digits>), a local directory, or use --lock FILE"
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise Failure(
            Reason.NETWORK,
            "its revision is not known and HF_HUB_OFFLINE is set",
            where=where,
            next_step=next_step,
        )
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        token = header_secret(os.environ.get("HF_TOKEN", ""))
    except ValueError as error:
        raise Failure(
            Reason.UNAUTHORIZED, f"the token in HF_TOKEN {error}", where=where, next_step="correct HF_TOKEN"
        ) from None
    try:
        request = urllib.request.Request(f"{endpoint}/api/{kind}/{repository}/revision/{revision}")
        if token:
            # Not sent to a redirect's target.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer: Any = json.loads(response.read(1 << 20))
        found = answer["sha"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            why = f"the hub has no such repository, or it needs a token (HTTP {error.code})"
            raise Failure(
                Reason.NO_SUCH_MODEL, why, where=where, next_step="check the name, or set HF_TOKEN"
            ) from None
        raise Failure(
            Reason.NETWORK, f"the hub answered HTTP {error.code}", where=where, next_step=next_step
        ) from None
    except OSError as error:
        why = f"the hub did not answer: {getattr(error, 'reason', error)}"
        raise Failure(Reason.NETWORK, why, where=where, next_step=next_step) from None
    except (http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError) as error:
        # The error's text is not shown: it can quote the request's headers, and with them the token.
        why = f"the hub's answer cannot be read ({type(error).__name__})"
        raise Failure(Reason.NETWORK, why, where=where, next_step=next_step) from None
    if not isinstance(found, str) or not _REVISION.fullmatch(found):
        raise Failure(Reason.NETWORK, "the hub's answer holds no commit", where=where, next_step=next_step)
    return found
