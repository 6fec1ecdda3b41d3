"""An overlay: a patch of any field of a run's pod templates, merged as Kubernetes does (strategic merge).

    metadata: …            # every pod of the run
    spec: {priorityClassName: batch}
    conductor: {spec: …}   # the conductor's pod only
    stages: {spec: …}      # every stage's pod
    kinds: {train: {spec: …}}
    names: {train-lora-s1: {spec: …}}

Wider patches are merged first. Mappings merge, `null` deletes a key, and `$patch: replace` or `delete` replaces or
deletes a mapping or an item. Lists whose items have a merge key in Kubernetes merge by it; all others (tolerations,
args, envFrom) are replaced.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from launcher.manifests import pod_schema
from launcher.outcome import Failure, Reason
from launcher.spec import literal_secrets
from launcher.spec.secret_text import found_in

#: List field of a pod template -> the field that identifies its items.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
}
_TEMPLATE = frozenset({"metadata", "spec"})
_SCOPES = frozenset({"conductor", "stages", "kinds", "names"})
_QUANTITY = re.compile(r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
#: Prefix of the labels that select a run's Jobs and pods.
_OWN_LABELS = "tuneyard.dev/"


class Overlay:
    """A checked patch of pod templates. The constructor raises Failure with every problem."""

    def __init__(self, document: dict[str, Any], kinds: set[str], names: set[str]) -> None:
        self._document = document
        problems = [
            f"{key}: not one of metadata, spec, {', '.join(sorted(_SCOPES))}" for key in _unknown(document)
        ]
        problems += _misplaced(document, "kinds", kinds) + _misplaced(document, "names", names)
        for where, patch in _patches(document):
            problems += _patch_problems(where, patch)
            if isinstance(patch, dict):
                known = {key: value for key, value in patch.items() if key in _TEMPLATE}
                problems += pod_schema.problems(where, known)
        # A problem that quotes a key or value must not repeat a secret.
        others = (problem for problem in problems if not found_in(problem))
        _refuse(list(dict.fromkeys((*literal_secrets.problems(document), *others))))

    def over_conductor(self, template: dict[str, Any]) -> dict[str, Any]:
        return self._merged(template, [self._document.get("conductor")])

    def over_stage(self, template: dict[str, Any], *, kind: str, name: str) -> dict[str, Any]:
        named = [
            (self._document.get(scope) or {}).get(key) for scope, key in (("kinds", kind), ("names", name))
        ]
        return self._merged(template, [self._document.get("stages"), *named])

    def _merged(self, template: dict[str, Any], patches: list[dict[str, Any] | None]) -> dict[str, Any]:
        everywhere = {key: value for key, value in self._document.items() if key in _TEMPLATE}
        for patch in [everywhere, *patches]:
            template = merge(template, patch or {})
        return template


def merge(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Strategic merge of two mappings; neither is changed."""
    directive = patch.get("$patch")
    patch = {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    if directive == "replace":
        return copy.deepcopy(patch)
    merged = copy.deepcopy(original)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, dict) else {}, value)
        elif isinstance(value, list) and key in MERGE_KEYS:
            merged[key] = _merge_list(merged.get(key) or [], value, MERGE_KEYS[key])
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _merge_list(original: list[Any], patch: list[Any], merge_key: str) -> list[Any]:
    """Merge items with the same key, in the order that Kubernetes gives them: new items before the untouched
    ones that follow. With the item `{$patch: replace}` the other items of the patch are the whole list."""
    items = [item for item in patch if set(item) != {"$patch"}]
    if len(items) < len(patch):
        return [merge({}, item) for item in items if item.get("$patch") != "delete"]
    places = {item.get(merge_key): place for place, item in enumerate(original)}
    named = {item[merge_key] for item in items}
    changed = [
        (places.get(item[merge_key]), merge(original[places[item[merge_key]]], item))
        if item[merge_key] in places
        else (None, merge({}, item))
        for item in items
        if item.get("$patch") != "delete"
    ]
    untouched = [(place, old) for place, old in enumerate(original) if old.get(merge_key) not in named]
    merged = []
    while untouched and changed:
        before = changed[0][0] is not None and untouched[0][0] < changed[0][0]
        merged.append((untouched if before else changed).pop(0))
    return [copy.deepcopy(item) for _, item in [*merged, *untouched, *changed]]


def template_problems(where: str, before: dict[str, Any], after: dict[str, Any], container: str) -> list[str]:
    """Problems of a merged pod template that Kubernetes' schemas do not find."""
    spec = after.get("spec") or {}
    problems = []
    if spec.get("restartPolicy") != "Never":
        problems.append(f"{where}.spec.restartPolicy: must stay Never; the conductor retries")
    own = [item for item in spec.get("containers") or [] if item.get("name") == container]
    if not own:
        problems.append(f"{where}.spec.containers: the container '{container}' must not be removed")
    elif own[0].get("args") != before["spec"]["containers"][0]["args"] or "command" in own[0]:
        problems.append(f"{where}.spec.containers[{container}]: args and command must not change")
    labels = (after.get("metadata") or {}).get("labels") or {}
    for name, value in before["metadata"]["labels"].items():
        if labels.get(name) != value:
            problems.append(f"{where}.metadata.labels.{name}: reserved for the run")
    problems += [
        f"{where}.metadata.labels.{name}: reserved for the run"
        for name in labels
        if name.startswith(_OWN_LABELS) and name not in before["metadata"]["labels"]
    ]
    problems += _container_problems(f"{where}.spec", spec)
    for path, value in _quantities(spec, f"{where}.spec"):
        if not _QUANTITY.fullmatch(str(value)):
            problems.append(f"{path}: '{value}' is not a quantity such as 16Gi or 500m")
    return problems


def _container_problems(where: str, spec: dict[str, Any]) -> Iterator[str]:
    """Containers without an image (a misspelt name), mounts of volumes that do not exist."""
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for kind in ("initContainers", "containers"):
        for item in spec.get(kind) or []:
            own = f"{where}.{kind}[{item.get('name')}]"
            if not item.get("image"):
                yield f"{own}: has no image, and the pod has no container of that name to patch"
            for mount in item.get("volumeMounts") or []:
                if mount.get("name") not in volumes:
                    yield f"{own}: mounts the volume '{mount.get('name')}', which the pod does not have"


def _unknown(document: dict[str, Any]) -> list[str]:
    return [str(key) for key in document if key not in _TEMPLATE | _SCOPES]


def _misplaced(document: dict[str, Any], scope: str, known: set[str]) -> list[str]:
    given = document.get(scope)
    if given is None:
        return []
    if not isinstance(given, dict):
        return [f"{scope}: must be a mapping of name to patch"]
    return [
        f"{scope}.{name}: the plan has only {', '.join(sorted(known))}" for name in given if name not in known
    ]


def _patches(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "", {key: value for key, value in document.items() if key in _TEMPLATE}
    for scope in ("conductor", "stages"):
        if scope in document:
            yield scope, document[scope]
    for scope in ("kinds", "names"):
        given = document.get(scope)
        for name, patch in given.items() if isinstance(given, dict) else ():
            yield f"{scope}.{name}", patch


def _patch_problems(where: str, patch: Any) -> list[str]:
    if not isinstance(patch, dict):
        return [f"{where}: must be a patch of a pod template: metadata, spec"]
    problems = [
        f"{where}.{key}: a pod template has only metadata and spec" for key in patch if key not in _TEMPLATE
    ]
    problems += [
        f"{_join(where, key)}: must be a mapping"
        for key in _TEMPLATE
        if not isinstance(patch.get(key, {}), dict)
    ]
    return problems + [
        found for key in _TEMPLATE for found in _node_problems(_join(where, key), patch.get(key), key)
    ]


def _node_problems(where: str, node: Any, field: str) -> Iterator[str]:
    """Unknown directives, items without their merge key."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                yield f"{where}: the key {key!r} is not a string"
            elif key == "$patch":
                if value not in ("replace", "delete", "merge"):
                    yield f"{where}.$patch: must be replace, delete or merge"
            elif key.startswith("$"):
                yield f"{where}.{key}: not supported; use $patch"
            else:
                yield from _node_problems(f"{where}.{key}", value, key)
    elif isinstance(node, list):
        for place, item in enumerate(node):
            if field in MERGE_KEYS and not isinstance(item, dict):
                yield f"{where}[{place}]: must be a mapping"
                continue
            if field in MERGE_KEYS and set(item) != {"$patch"} and MERGE_KEYS[field] not in item:
                yield f"{where}[{place}]: has no '{MERGE_KEYS[field]}', which identifies items"
            if isinstance(item, dict) and item.get("$patch") == "replace" and len(item) > 1:
                # Kubernetes drops such an item and every item that is not in the patch.
                yield f"{where}[{place}].$patch: replace must be the item's only key; the other items are the list"
            yield from _node_problems(f"{where}[{place}]", item, field)


def _quantities(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("requests", "limits", "overhead") and isinstance(value, dict):
                yield from ((f"{where}.{key}.{name}", amount) for name, amount in value.items())
            elif key == "sizeLimit":
                yield f"{where}.{key}", value
            else:
                yield from _quantities(value, f"{where}.{key}")
    elif isinstance(node, list):
        for place, item in enumerate(node):
            yield from _quantities(item, f"{where}[{place}]")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the overlay cannot be used",
            where="--overlay",
            problems=tuple(problems),
            next_step="see docs/cluster.md, section Rendering, for what an overlay may contain",
        )


__all__ = ["MERGE_KEYS", "Overlay", "merge", "template_problems"]
