"""Errors of S3 servers as Failures, and whether a retry may help.

Messages quote error codes, never the server's own text. No next step names a run: a store is opened before there is
one, and `launcher why` adds the retry.
"""

from __future__ import annotations

import http.client

import botocore.exceptions
import botocore.parsers
import urllib3.exceptions

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address

#: Error code -> (reason, message, next step).
_CODES: dict[str, tuple[Reason, str, str]] = {
    "NoSuchBucket": (Reason.STORE_FAILED, "the bucket does not exist", "create it, or correct --store"),
    "InvalidAccessKeyId": (
        Reason.STORE_FAILED,
        "the server does not know the access key",
        "check AWS_ACCESS_KEY_ID or the profile",
    ),
    "XAdminUserNotFound": (
        Reason.STORE_FAILED,
        "the server does not know the access key",
        "check AWS_ACCESS_KEY_ID or the profile",
    ),
    "SignatureDoesNotMatch": (
        Reason.STORE_FAILED,
        "the server refuses the signature: the secret key or the region is wrong",
        "check AWS_SECRET_ACCESS_KEY, or name region= in the address",
    ),
    "AuthorizationHeaderMalformed": (
        Reason.STORE_FAILED,
        "the server refuses the signature's region",
        "name region= in the address",
    ),
    "RequestTimeTooSkewed": (
        Reason.STORE_FAILED,
        "this machine's clock and the server's differ too much",
        "set this machine's clock",
    ),
    "InvalidRange": (Reason.CORRUPT_ARTIFACT, "the object is shorter than what was written", ""),
    "416": (Reason.CORRUPT_ARTIFACT, "the object is shorter than what was written", ""),
    "AllAccessDisabled": (Reason.STORE_FAILED, "access to the bucket is disabled", ""),
    "NotImplemented": (Reason.UNSUPPORTED, "the server does not know this request", "use another server"),
}
_DENIED = ("AccessDenied", "403", "Forbidden", "AccountProblem", "UnauthorizedAccess")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken")
#: Error codes for a key that has been replaced since it was read.
REPLACED = ("InvalidAccessKeyId", "XAdminUserNotFound", "SignatureDoesNotMatch", "AccessDenied", "403")
_FULL = (
    "InsufficientStorage",
    "507",
    "XMinioStorageFull",
    "XMinioStorageQuotaExceeded",
    "QuotaExceeded",
    "InsufficientCapacity",
    "StorageFull",
)
#: Error codes for a request that was damaged in transit; a retry may succeed.
SPOILT = (
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "InvalidDigest",
    "IncompleteBody",
    "BadRequest",
    "400",
    "MalformedXML",
    "RequestTimeout",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
    "InvalidRequest",
    "MethodNotAllowed",
    "405",
)
_BUSY = (
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "TooManyRequests",
    "InternalError",
    "OperationAborted",
)
#: `launcher.store.conditional_create.PROBES`; importing it would be circular.
_PROBES = "/.probes/"
#: Exceptions of a lost or damaged connection.
BROKEN = (
    botocore.exceptions.BotoCoreError,
    botocore.parsers.ResponseParserError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    KeyError,
)


class NoWholeAnswer(Exception):
    """A request was not answered whole in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no whole answer within {seconds:.0f} s")
        self.seconds = seconds


def explain(error: Exception, operation: str, where: str, address: S3Address, tries: int = 1) -> Failure:
    """The Failure for the last error of `tries` tries of `operation` on `where`."""
    if _PROBES in where:
        # Opening a store probes it; the failed step of the probe is of no use to a user.
        operation, where = "a trial write", str(address)
    if isinstance(error, NoWholeAnswer):
        return Failure(
            Reason.NETWORK,
            f"no whole answer to {operation} within {error.seconds:.0f} s",
            where=where,
            next_step="check the network and the server, then try again",
        )
    if isinstance(error, botocore.exceptions.ClientError):
        return _explain_answer(error, operation, where, tries)
    return _explain_connection_error(error, operation, where, address)


def is_away(error: Exception) -> bool:
    """Whether the server is away, overloaded or restarting: refused and closed connections, timeouts, 429, 5xx."""
    if isinstance(error, botocore.exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _FULL or code == "NotImplemented" or status in (501, 507):
            return False
        return code in _BUSY or status >= 500 or status == 429
    if isinstance(error, botocore.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    lost = (
        NoWholeAnswer,
        botocore.exceptions.HTTPClientError,
        botocore.exceptions.ConnectionError,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, lost)


def is_spoilt(error: Exception) -> bool:
    """Whether a request or an answer may have been damaged on its way, so that the next try may succeed."""
    if isinstance(error, botocore.exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        return code in SPOILT or code == "ConditionalRequestConflict"
    lasting = (
        NoWholeAnswer,
        botocore.exceptions.NoCredentialsError,
        botocore.exceptions.PartialCredentialsError,
        botocore.exceptions.ParamValidationError,
        botocore.exceptions.ProfileNotFound,
        botocore.exceptions.SSLError,
    )
    return not isinstance(error, lasting)


def name_of(error: Exception) -> str:
    """What happened, in a few words without the server's own text."""
    if isinstance(error, botocore.exceptions.ClientError):
        return f"HTTP {error.response.get('ResponseMetadata', {}).get('HTTPStatusCode', 0)}"
    return str(error) if isinstance(error, NoWholeAnswer) else type(error).__name__


def _explain_answer(
    error: botocore.exceptions.ClientError, operation: str, where: str, tries: int
) -> Failure:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    if "the request time and" in str(answer.get("Error", {}).get("Message", "")):
        code = "RequestTimeTooSkewed"  # rclone answers AccessDenied if the clock is behind
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _CODES:
        reason, what, next_step = _CODES[code]
        return Failure(reason, f"{what} ({operation})", where=where, next_step=next_step)
    if code in EXPIRED:
        return Failure(
            Reason.STORE_FAILED,
            f"the credentials have expired, and no fresh ones were found ({operation})",
            where=where,
            next_step="log in again or renew the session token, then try again",
        )
    if code in _FULL or status == 507:
        return Failure(
            Reason.DISK_FULL,
            f"the server has no space left ({operation}: {code})",
            where=where,
            next_step="free space on the server (launcher gc), then try again",
        )
    if code in _DENIED or status == 403:
        return Failure(
            Reason.STORE_FAILED,
            f"access denied ({operation})",
            where=where,
            next_step="check which credentials are in use and what they may do",
        )
    if code in _BUSY or status >= 500 or status == 429:
        return Failure(
            Reason.NETWORK,
            f"the server answered {status} {code} to {operation}, {tries} times",
            where=where,
            next_step="wait until the server has recovered, then try again",
        )
    return Failure(Reason.STORE_FAILED, f"the server answered {status} {code} to {operation}", where=where)


def _explain_connection_error(error: Exception, operation: str, where: str, address: S3Address) -> Failure:
    endpoint = address.endpoint_url or "the endpoint"
    if isinstance(
        error, botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError
    ):
        return Failure(
            Reason.STORE_FAILED,
            "no credentials were found",
            where=where,
            next_step="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if isinstance(error, botocore.exceptions.ProfileNotFound):
        return Failure(
            Reason.STORE_FAILED,
            str(error),
            where=where,
            next_step="correct AWS_PROFILE or profile= in --store",
        )
    if isinstance(error, botocore.exceptions.SSLError):
        return Failure(
            Reason.NETWORK,
            f"{endpoint}'s certificate is not trusted",
            where=where,
            next_step="name the authority: ca_bundle=FILE in the address, or AWS_CA_BUNDLE",
        )
    if isinstance(
        error, botocore.exceptions.CredentialRetrievalError | botocore.exceptions.TokenRetrievalError
    ):
        return Failure(
            Reason.STORE_FAILED,
            "the credentials could not be renewed",
            where=where,
            next_step="log in again, then try again",
        )
    kind = type(error).__name__
    if isinstance(error, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError | OSError):
        return Failure(
            Reason.NETWORK,
            f"the connection to {endpoint} failed during {operation} ({kind})",
            where=where,
            next_step="check the network and endpoint_url, then try again",
        )
    return Failure(Reason.STORE_FAILED, f"{operation} failed ({kind})", where=where)
