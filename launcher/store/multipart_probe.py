"""Whether a bucket stores an object in two parts, tried before anything is paid for."""

from __future__ import annotations

import contextlib
import uuid

from launcher.outcome import Failure, Reason
from launcher.store.conditional_create import PROBES
from launcher.store.s3_client import Absent, Client, md5

#: S3's smallest part, except for the last one.
_PART_BYTES = 5 << 20


def probe_multipart(client: Client) -> None:
    """Raises Failure if the bucket cannot store an object in two parts."""
    key = client.address.key(f"{PROBES}/{uuid.uuid4().hex}")
    parts = [bytes(_PART_BYTES), b"tuneyard"]
    upload = client.begin_upload(key)
    try:
        etags = [
            client.put_part(key, upload, number, data, md5(data)) or md5(data)
            for number, data in enumerate(parts, 1)
        ]
        # A lost answer may have completed it: then the object exists.
        with contextlib.suppress(Absent):
            client.complete_upload(key, upload, etags)
        stored = client.head(key).size_bytes
    except (Failure, Absent) as error:
        with contextlib.suppress(Failure, Absent):
            client.abort_upload(key, upload)
        if isinstance(error, Failure) and error.reason is Reason.NETWORK:
            raise
        why = error.what if isinstance(error, Failure) else "it is missing right after it was written"
        raise _refused(client, why) from None
    finally:
        client.delete([key])
    if stored != sum(len(data) for data in parts):
        raise _refused(client, f"it has {stored} bytes")


def _refused(client: Client, why: str) -> Failure:
    return Failure(
        Reason.STORE_FAILED,
        f"the bucket cannot store an object in two parts ({why}), so no file over "
        f"{client.limits.part_bytes >> 20} MiB",
        where=str(client.address),
        next_step="check the bucket's encryption and its policy for multipart uploads, or use another bucket",
    )
