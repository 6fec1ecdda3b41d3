"""Errors of the API server: HTTP status and Status object -> Failure with a next step."""

from __future__ import annotations

import re
from typing import Any

from launcher.outcome import Failure, Reason
from launcher.system.json_text import parse_json
from launcher.system.text import printable

_LONGEST_CHARACTERS = 600
#: Server-side apply answers 500 to an invalid manifest: an unknown field, a malformed quantity.
_NOT_VALID = re.compile(r"failed to create typed patch object|failed to convert new object")
#: In messages of an API server that rejects a pod for a ResourceQuota.
QUOTA_MESSAGE = "exceeded quota"
_WAITING = re.compile(r"waiting to start")
_POLICY = re.compile(r"admission webhook|ValidatingAdmissionPolicy|violates PodSecurity|denied the request")


class KubernetesApiError(Failure):
    """The API server answered with an error. `status` is the HTTP status.

    `cause` is one of: unauthorized, forbidden (a permission is missing), quota, policy (admission), absent,
    exists, immutable, held (another field manager owns a field), waiting (the container has not started),
    invalid, other. `repeated`: an earlier try of the request, whose answer was lost, may have taken effect.
    """

    def __init__(self, reason: Reason, what: str, *, status: int, cause: str, **more: Any):
        super().__init__(reason, what, cause=cause, **more)
        self.status = status
        self.repeated = False


def is_unauthorized(failure: Failure) -> bool:
    """Whether the server rejects the credentials themselves."""
    return isinstance(failure, KubernetesApiError) and failure.cause == "unauthorized"


def is_quota_exceeded(failure: Failure) -> bool:
    """Whether a quota of the namespace has no room left."""
    return isinstance(failure, KubernetesApiError) and failure.cause == "quota"


def answer_of(body: bytes) -> dict[str, Any]:
    """The Status object of an error answer; for any other body (a proxy's page) its first line as message."""
    try:
        value = parse_json(body)
    except ValueError:
        first = body.decode("utf-8", "replace").strip().partition("\n")[0]
        return {"message": first[:200]}
    return value if isinstance(value, dict) else {}


def is_final(status: int, answer: dict[str, Any]) -> bool:
    """Whether a retry can only give the same answer."""
    if status in (429, 502, 503, 504):
        return False
    if status == 500:
        return bool(_NOT_VALID.search(answer.get("message") or ""))
    if status == 409 and answer.get("reason") == "Conflict":
        # Any other conflict is a race inside the server, such as two writers of one quota.
        return _held(answer) or "precondition" in (answer.get("message") or "").lower()
    return True


def api_error(status: int, answer: dict[str, Any], *, doing: str, where: str) -> KubernetesApiError:
    """The failure for an error answer. `doing` reads like "create Job x"; `where` names server and namespace."""
    message = _short(answer.get("message") or answer.get("reason") or f"HTTP status {status}")
    if status == 401:
        return KubernetesApiError(
            Reason.UNAUTHORIZED,
            "the API server does not accept these credentials",
            where=where,
            status=status,
            cause="unauthorized",
            next_step="log in to the cluster again; kubectl auth whoami shows who you are",
        )
    if status == 403:
        return _forbidden(message, doing, where)
    if status == 404:
        return _absent(message, doing, where)
    if status == 409 and _held(answer):
        return KubernetesApiError(
            Reason.UNSUPPORTED,
            f"cannot {doing}: another field manager has changed it",
            where=where,
            problems=_causes(answer) or (message,),
            status=status,
            cause="held",
            next_step="undo that change, or delete the object",
        )
    if status == 400 and _WAITING.search(message):
        return KubernetesApiError(
            Reason.UNSUPPORTED,
            f"cannot {doing}: the container has not started",
            where=where,
            problems=(message,),
            status=400,
            cause="waiting",
        )
    if status in (400, 422) or _NOT_VALID.search(message):
        return _invalid(status, answer, message, doing, where)
    busy = status == 429 or status >= 500
    return KubernetesApiError(
        Reason.NETWORK if busy else Reason.UNSUPPORTED,
        f"cannot {doing}: the API server answers {status}",
        where=where,
        problems=(message,),
        status=status,
        cause="exists" if answer.get("reason") == "AlreadyExists" else "other",
    )


def _forbidden(message: str, doing: str, where: str) -> KubernetesApiError:
    missing = re.search(
        r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
        r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]*)")?',
        message,
    )
    if missing:
        resource = ".".join(part for part in (missing["resource"], missing["group"]) if part)
        scope = f"in namespace {missing['namespace']}" if missing["namespace"] else "in the whole cluster"
        return KubernetesApiError(
            Reason.UNAUTHORIZED,
            f"{missing['user']} may not {missing['verb']} {resource} {scope}",
            where=where,
            status=403,
            cause="forbidden",
            next_step=f"ask for a Role that allows {missing['verb']} on {resource} {scope}",
        )
    if QUOTA_MESSAGE in message:
        cause, what, step = "quota", "a quota of the namespace is used up", "kubectl describe resourcequota"
    elif _POLICY.search(message):
        cause, what, step = "policy", "a policy of the cluster refuses it", "change what the policy names"
    else:
        cause, what, step = "policy", "the cluster does not admit it", "correct what is listed"
    return KubernetesApiError(
        Reason.UNSUPPORTED,
        f"cannot {doing}: {what}",
        where=where,
        problems=(message,),
        status=403,
        cause=cause,
        next_step=step,
    )


def _absent(message: str, doing: str, where: str) -> KubernetesApiError:
    namespace = re.search(r'namespaces "([^"]+)" not found', message)
    if namespace:
        what, step = f"namespace {namespace[1]} does not exist", f"kubectl create namespace {namespace[1]}"
    else:
        what, step = f"cannot {doing}: {message}", "launcher doctor shows what the cluster offers"
    return KubernetesApiError(
        Reason.MISSING_INPUT, what, where=where, status=404, cause="absent", next_step=step
    )  # fmt: skip


def _invalid(status: int, answer: dict[str, Any], message: str, doing: str, where: str) -> KubernetesApiError:
    problems = _causes(answer) or (message,)
    if any("field is immutable" in problem for problem in problems):
        return KubernetesApiError(
            Reason.UNSUPPORTED,
            f"cannot {doing}: it exists with other content and is immutable",
            where=where,
            problems=problems,
            status=status,
            cause="immutable",
            next_step="delete the object of that name, then try again",
        )
    denied = bool(_POLICY.search(message))
    return KubernetesApiError(
        Reason.UNSUPPORTED if denied else Reason.BAD_EXPERIMENT,
        f"cannot {doing}: " + ("a policy of the cluster refuses it" if denied else "it is not valid"),
        where=where,
        problems=problems,
        status=status,
        cause="policy" if denied else "invalid",
        next_step="change what the policy names" if denied else "correct what is listed",
    )


def _held(answer: dict[str, Any]) -> bool:
    causes = (answer.get("details") or {}).get("causes") or ()
    return any(cause.get("reason") == "FieldManagerConflict" for cause in causes)


def _causes(answer: dict[str, Any]) -> tuple[str, ...]:
    causes = (answer.get("details") or {}).get("causes") or ()
    texts = (": ".join(part for part in (c.get("field"), c.get("message")) if part) for c in causes)
    return tuple(dict.fromkeys(_short(text) for text in texts))


def _short(text: str) -> str:
    """One printable line; the object that an immutable field's message repeats is left out."""
    line = re.sub(r"Invalid value: .*: field is immutable", "field is immutable", " ".join(text.split()))
    line = printable(line)
    if len(line) <= _LONGEST_CHARACTERS:
        return line
    return f"{line[: _LONGEST_CHARACTERS // 2]} … {line[-_LONGEST_CHARACTERS // 2 :]}"
