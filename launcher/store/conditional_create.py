"""Create-once: one of several writers creates an object.

By `If-None-Match: *` if the server honours it. Servers that ignore the condition (rclone's) answer 200 to all
writers; there a writer first writes a claim, then lists the claims. If it is alone, it writes the object.
Otherwise the smallest claim writes, after `settle_s` in which a writer that found itself alone may write, and the
others wait. This assumes that no writer takes longer than `settle_s` between list and write, which no protocol of
plain reads and writes can avoid. Artifacts are safe even if it fails: each writer's files have their own prefix.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid

from launcher.outcome import Failure, Reason
from launcher.store.s3_client import Absent, Client, Taken, md5

#: Folder of the claims to the objects beside it; hidden, because names of artifacts are not.
CLAIMS = ".claims"
PROBES = ".probes"
_RACERS = 4
_ETAG_TRIES = 6


def probe(client: Client) -> bool:
    """Whether exactly one of several conditional writers wins; also finds out whether ETags are MD5s.

    Raises Failure if the bucket cannot be written.
    """
    client.etag_is_md5 = _tells_md5(client)
    key = client.address.key(f"{PROBES}/{uuid.uuid4().hex}")
    try:
        client.put(key, b"tuneyard")
        return _second_loses(client, key) and _one_of_many_wins(client)
    finally:
        client.delete([key])


def _tells_md5(client: Client) -> bool:
    """Whether the server's ETags are MD5s. One match proves it; a mismatch may be a write damaged in transit."""
    key = client.address.key(f"{PROBES}/{uuid.uuid4().hex}")
    try:
        for number in range(_ETAG_TRIES):
            data = b"tuneyard %d" % number
            if client.put(key, data) == md5(data):
                return True
        return False
    finally:
        client.delete([key])


def _second_loses(client: Client, key: str) -> bool:
    """Whether a conditional write is refused if there is an object."""
    try:
        client.put(key, b"second", create=True)
    except Taken:
        return True
    except Failure as failure:
        if failure.reason is not Reason.UNSUPPORTED:
            raise
    return False


def _one_of_many_wins(client: Client) -> bool:
    key = client.address.key(f"{PROBES}/{uuid.uuid4().hex}")
    won: list[int] = []
    failed: list[Failure] = []

    def race(number: int) -> None:
        try:
            client.put(key, b"%d" % number, writer=str(number), create=True)
            won.append(number)
        except Taken:
            return
        except Failure as failure:
            failed.append(failure)

    racers = [threading.Thread(target=race, args=(number,), daemon=True) for number in range(_RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    try:
        # A lost answer can make the winner look like a loser, not the reverse.
        return len(won) <= 1 and not failed
    finally:
        client.delete([key])


def create(client: Client, key: str, data: bytes, *, conditional: bool) -> bool:
    """Write `data` at `key` unless there is an object. True if this call's object is there now."""
    writer = uuid.uuid4().hex
    if not conditional:
        return _by_claims(client, key, data, writer)
    for _ in range(client.limits.wrong_answers):
        try:
            etag = client.put(key, data, writer=writer, create=True)
        except Taken:
            return _is_ours(client, key, data, writer)
        if client.etag_matches(etag, md5(data)):
            return True
        if _is_ours(client, key, data, writer):
            return True
    raise _spoilt(client, key)


def _is_ours(client: Client, key: str, data: bytes, writer: str) -> bool:
    """Whether the object at `key` is this writer's; if it arrived damaged, it is written again."""
    for _ in range(client.limits.wrong_answers):
        try:
            got = client.get(key)
        except Absent:
            return False
        if got.data == data:
            # Equal bytes of another writer are not ours, if the writer is known.
            return got.writer in (writer, "")
        if got.writer != writer:
            return False
        if hashlib.sha256(client.get(key).data).digest() == hashlib.sha256(data).digest():
            continue  # the first reading was wrong
        overwrite(client, key, data, writer)
    raise _spoilt(client, key)


def overwrite(client: Client, key: str, data: bytes, writer: str = "") -> None:
    """Write `data` at `key`, replacing any object, until the server confirms it."""
    for _ in range(client.limits.wrong_answers):
        if client.etag_matches(client.put(key, data, writer=writer), md5(data)):
            return
    raise _spoilt(client, key)


def _spoilt(client: Client, key: str) -> Failure:
    return Failure(
        Reason.NETWORK,
        "the server confirms other bytes than were written",
        where=f"s3://{client.address.bucket}/{key}",
        next_step="check the network and the server, then launcher retry RUN",
    )


def _by_claims(client: Client, key: str, data: bytes, writer: str) -> bool:
    if _exists(client, key):
        return False
    folder, _, name = key.rpartition("/")
    claims = f"{folder}/{CLAIMS}/{name}/" if folder else f"{CLAIMS}/{name}/"
    own = f"{claims}{writer}"
    settle_s = client.limits.settle_s
    overwrite(client, own, b"{}", writer)
    try:
        looked_at = time.monotonic()
        rivals = sorted(stat.key for stat in client.objects(claims))
        if own not in rivals:
            raise _spoilt(client, own)
        if len(rivals) > 1:
            # The smallest claim waits for a writer that was alone before it, the next one for the smallest, …
            deadline = time.monotonic() + settle_s * (1 + rivals.index(own))
            while time.monotonic() < deadline:
                if _exists(client, key):
                    return False
                time.sleep(min(0.2, settle_s / 4))
            looked_at = time.monotonic()
        if _exists(client, key):
            return False
        if time.monotonic() - looked_at > settle_s / 4:
            raise Failure(
                Reason.NETWORK,
                "the server is too slow to decide between writers",
                where=f"s3://{client.address.bucket}/{key}",
                next_step="wait until the server has recovered, then launcher retry RUN",
            )
        return _write_in_time(client, key, data, writer)
    finally:
        client.delete([own])


def _write_in_time(client: Client, key: str, data: bytes, writer: str) -> bool:
    """Write at once or not at all; with the condition, because other writers may rely on it."""
    try:
        etag = client.put(key, data, writer=writer, create=True, hasty=True)
    except Taken:
        return _is_ours(client, key, data, writer)
    except Failure as failure:
        if failure.reason is not Reason.UNSUPPORTED:
            raise
        etag = client.put(key, data, writer=writer, hasty=True)
    if not client.etag_matches(etag, md5(data)):
        overwrite(client, key, data, writer)
    return True


def _exists(client: Client, key: str) -> bool:
    try:
        client.head(key)
    except Absent:
        return False
    return True
