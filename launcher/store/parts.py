"""Parts of an object: their sizes, and the ETags that S3 computes from their MD5s."""

from __future__ import annotations

from launcher.store.s3_client import Client, md5

_MIB = 1 << 20
#: S3 allows 10,000 parts.
_MAX_PARTS = 9_900


def part_size(size_bytes: int, base_bytes: int) -> int:
    """Bytes of each part of an object (the last may be smaller); follows from its size alone."""
    least = -(-size_bytes // _MAX_PARTS)
    return max(base_bytes, -(-least // _MIB) * _MIB)


def ranges(size_bytes: int, each: int) -> list[tuple[int, int]]:
    """(first byte, bytes) of every part; one empty part for an empty object."""
    return [(first, min(each, size_bytes - first)) for first in range(0, size_bytes, each)] or [(0, 0)]


def whole_etag(digests: list[str]) -> str:
    """The ETag of an object written in parts with these MD5s, or written whole with a single one."""
    if len(digests) == 1:
        return digests[0]
    return f"{md5(b''.join(bytes.fromhex(digest) for digest in digests))}-{len(digests)}"


def etag_matches(client: Client, etag: str, digests: list[str]) -> bool:
    """Whether the ETag of a whole object is compatible with parts that have these MD5s.

    Some servers do not return S3's `<md5>-<parts>` for an object of several parts; such an ETag counts as
    compatible, because the ETags of the parts were compared when they were sent.
    """
    if len(digests) > 1 and not etag.endswith(f"-{len(digests)}"):
        return True
    return not etag or client.etag_matches(etag, whole_etag(digests))
