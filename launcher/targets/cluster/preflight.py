"""Asks the cluster for everything that a run needs, before anything is applied; reports every problem at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher.outcome import Failure, Reason
from launcher.spec.site import Site
from launcher.system.text import listed
from launcher.targets.cluster import node_fit, pod_references
from launcher.targets.cluster.api_errors import KubernetesApiError
from launcher.targets.cluster.client import Applied, Cluster, Conflict

if TYPE_CHECKING:
    from launcher.manifests.render import Rendered

_AT_ONCE = 8
_SHOWN_KEYS = 6

Manifest = dict[str, Any]


def preflight(cluster: Cluster, rendered: Rendered, site: Site) -> tuple[str, ...]:
    """Raises one Failure with every problem; returns messages about what could not be checked.

    Checked: a server-side dry run of every object, every stage's Job and a Pod of each Job's template, where a
    warning is a problem; the Secrets (and keys), ConfigMaps and claims that pods mount; whether some node could
    run each pod.
    """
    findings = _Findings()
    own = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered.objects}
    jobs = [*rendered.stage_jobs.values(), *(m for m in rendered.objects if m["kind"] == "Job")]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for question, outcome in pool.map(_ask, _questions(cluster, rendered, jobs, own)):
            _judge(findings, question, outcome, own)
    _check_references(cluster, findings, jobs, own, site)
    if site.check_nodes:
        _check_nodes(cluster, findings, jobs)
    if findings.problems:
        reason = findings.reasons.pop() if len(findings.reasons) == 1 else Reason.UNSUPPORTED
        raise Failure(
            reason,
            "the cluster cannot carry out this run; nothing was applied",
            where=cluster.where,
            problems=findings.lines(),
            next_step="correct what is listed, then submit again",
        )
    return tuple(findings.notes)


@dataclass
class _Findings:
    """Problems with the objects that have them, and notes on what could not be checked."""

    problems: dict[str, list[str]] = field(default_factory=dict)
    reasons: set[Reason] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, reason: Reason, text: str, about: str = "") -> None:
        self.reasons.add(reason)
        named = self.problems.setdefault(text, [])
        if about and about not in named:
            named.append(about)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{', '.join(about)}: {text}" if about else text for text, about in self.problems.items()
        )


@dataclass(frozen=True)
class _Question:
    about: str  # "ConfigMap x", "pods of Job y"
    kind: str
    ask: Callable[[], Applied]


def _questions(
    cluster: Cluster, rendered: Rendered, jobs: list[Manifest], own: set[tuple[str, str]]
) -> Iterator[_Question]:
    """Every dry run, by the call that will make the object: apply (launcher) or create (conductor)."""
    for manifest in rendered.objects:
        about = f"{manifest['kind']} {manifest['metadata']['name']}"
        yield _Question(about, manifest["kind"], partial(cluster.apply, manifest, dry_run=True))
    for manifest in rendered.stage_jobs.values():
        about = f"Job {manifest['metadata']['name']}"
        yield _Question(about, "Job", partial(cluster.create, manifest, dry_run=True))
    for manifest in jobs:
        # The Job controller meets limits, quotas and Pod Security only when it creates the pod.
        about = f"pods of Job {manifest['metadata']['name']}"
        yield _Question(about, "Pod", partial(cluster.create, _pod_of(manifest, own), dry_run=True))


def _pod_of(job: Manifest, own: set[tuple[str, str]]) -> Manifest:
    template = job["spec"]["template"]
    spec = dict(template["spec"])
    if ("ServiceAccount", spec.get("serviceAccountName", "")) in own:
        del spec["serviceAccountName"]  # it does not exist before the real apply
    metadata = {**(template.get("metadata") or {}), "name": f"{job['metadata']['name']}-preflight"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _ask(question: _Question) -> tuple[_Question, Applied | KubernetesApiError | Conflict]:
    try:
        return question, question.ask()
    except Conflict as conflict:
        return question, conflict
    except KubernetesApiError as error:
        if error.cause == "unauthorized":
            raise
        return question, error


def _judge(
    findings: _Findings,
    question: _Question,
    outcome: Applied | KubernetesApiError | Conflict,
    own: set[tuple[str, str]],
) -> None:
    if isinstance(outcome, Conflict):
        return  # submitted before: an equal name means equal content
    if isinstance(outcome, Applied):
        for warning in outcome.warnings:
            findings.add(Reason.UNSUPPORTED, _without_name(warning), question.about)
        return
    if question.kind == "RoleBinding" and _is_missing_role(outcome, own):
        return
    if question.kind == "Pod" and outcome.cause == "quota" and _fits_an_empty_quota(outcome.problems[0]):
        findings.note(
            f"{question.about} will wait until the quota has room: {_without_name(outcome.problems[0])}"
        )
        return
    if outcome.cause in ("forbidden", "absent"):
        findings.add(outcome.reason, outcome.what)
        return
    for problem in outcome.problems or (outcome.what,):
        findings.add(outcome.reason, _without_name(problem), question.about)


def _is_missing_role(error: KubernetesApiError, own: set[tuple[str, str]]) -> bool:
    """Whether a RoleBinding's dry run fails only because its own Role exists in a dry run only.

    The server then reports the Role as absent, or (1.34, on apply) the binding itself.
    """
    absent = re.search(r'(?:roles|rolebindings)\.rbac\.authorization\.k8s\.io "[^"]+" not found', error.what)
    return absent is not None and any(kind == "Role" for kind, _ in own)


def _fits_an_empty_quota(message: str) -> bool:
    """Whether the request is within the quota's limits, so that only other pods' use exceeds it."""
    parts = dict(re.findall(r"(requested|limited): ((?:[^,\s]+=[^,\s]+,?)+)", message))
    requested, limited = (
        dict(item.split("=", 1) for item in parts.get(name, "").strip(",").split(",") if item)
        for name in ("requested", "limited")
    )
    return bool(requested) and all(
        name in limited and node_fit.quantity(amount) <= node_fit.quantity(limited[name])
        for name, amount in requested.items()
    )


def _check_references(
    cluster: Cluster, findings: _Findings, jobs: list[Manifest], own: set[tuple[str, str]], site: Site
) -> None:
    """Check that every object that pods mount exists, with the keys that they use."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for job in jobs:
        for reference in pod_references.of_pod(job["spec"]["template"]["spec"]):
            if (reference.kind, reference.name) not in own:
                keys = wanted.setdefault((reference.kind, reference.name), set())
                keys.update({reference.key} if reference.key else ())
    for (kind, name), keys in sorted(wanted.items()):
        try:
            found = cluster.get(kind, name)
        except KubernetesApiError as error:
            if error.cause != "forbidden":
                raise
            findings.note(f"not checked whether {kind} {name} exists: {error.what}")
            continue
        if found is None:
            wanted_keys = f", needed with {_keys(keys)}" if keys else ""
            findings.add(
                Reason.MISSING_INPUT,
                f"{kind} {name} does not exist{wanted_keys}{_purpose(site, name, keys)}",
            )
            continue
        there = {*(found.get("data") or {}), *(found.get("binaryData") or {})}
        if missing := keys - there:
            findings.add(
                Reason.MISSING_INPUT,
                f"{kind} {name} has no {_keys(missing)}{_purpose(site, name, missing)}; it has {_keys(there)}",
            )
        if kind == "PersistentVolumeClaim":
            _check_claim(cluster, findings, found)


def _check_claim(cluster: Cluster, findings: _Findings, claim: Manifest) -> None:
    name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase")
    storage_class = claim["spec"].get("storageClassName")
    if phase == "Lost":
        findings.add(Reason.MISSING_INPUT, f"PersistentVolumeClaim {name} has lost its volume")
    if phase == "Bound" or not storage_class:
        return
    try:
        if cluster.get("StorageClass", storage_class) is None:
            findings.add(
                Reason.MISSING_INPUT,
                f"PersistentVolumeClaim {name} is {phase}: no StorageClass {storage_class}",
            )
    except KubernetesApiError as error:
        findings.note(f"not checked whether StorageClass {storage_class} exists: {error.what}")


def _check_nodes(cluster: Cluster, findings: _Findings, jobs: list[Manifest]) -> None:
    """Check that for each pod some node could run it if the node were empty."""
    try:
        nodes = cluster.list("Node")
    except KubernetesApiError as error:
        if error.cause != "forbidden":
            raise
        findings.note(f"not checked whether a node has the requested GPUs and memory: {error.what}")
        return
    for job in jobs:
        why = node_fit.why_nowhere(job["spec"]["template"]["spec"], nodes)
        if why is not None:
            about = f"pods of Job {job['metadata']['name']}"
            findings.add(Reason.UNSUPPORTED, f"no node can run it: {why}", about)


def _purpose(site: Site, secret: str, keys: set[str]) -> str:
    """The fields of the site file that name this Secret."""
    named = [
        f"secrets.{purpose}"
        for purpose, value in site.secrets.named().items()
        if value.secret == secret and (not keys or value.key in keys)
    ]
    return f" ({', '.join(named)} of the site file)" if named else ""


def _keys(keys: set[str]) -> str:
    names = sorted(keys)
    if not names:
        return "no keys"
    return f"key{'s' if len(names) > 1 else ''} {listed(names, _SHOWN_KEYS)}"


def _without_name(message: str) -> str:
    """The message without its leading object, so that a problem that several objects share is reported once."""
    return re.sub(r'^\S+ "[^"]*" is (?:forbidden|invalid): ', "", message)
