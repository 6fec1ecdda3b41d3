"""Plan and site -> chart values -> manifests. Pure: the same plan and site give the same bytes on any day.

What `launcher render` prints is what `launcher submit` applies. Every object's name ends in the manifest hash, the
first digits of a digest over all rendered objects: a changed image or namespace is a new object, never a patch of
an immutable one. Helm therefore renders with a placeholder, which the hash then replaces.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import yaml

from launcher.manifests import helm
from launcher.manifests.chart_values import Values, chart_directory
from launcher.manifests.labels import TRY_LABEL
from launcher.manifests.object_yaml import object_yaml
from launcher.manifests.overlay import Overlay, template_problems
from launcher.manifests.run_values import NO_HASH, run_values
from launcher.outcome import Failure, Reason
from launcher.spec.key_hosts import require_bound_hosts
from launcher.spec.plan import Plan, canonical
from launcher.spec.site import Site

#: Client-side apply fails between 255 and 300 KiB; the API server at 1 MiB.
CONFIG_MAP_LIMIT_BYTES = 240 << 10
#: The order to apply: what an object needs comes before it.
_ORDER = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "NetworkPolicy", "Job")
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Rendered:
    """A run's manifests: `objects` in the order to apply, and `stage_jobs`, which the ConfigMap holds as text."""

    run_id: str
    attempt: int
    manifest_hash: str
    namespace: str
    objects: tuple[dict[str, Any], ...]
    stage_jobs: dict[str, dict[str, Any]]
    conductor_job: str
    values: dict[str, Any]

    def to_yaml(self) -> bytes:
        """All objects as YAML documents, as `launcher render` prints them."""
        return b"".join(b"---\n" + object_yaml(item) for item in self.objects)


def render(
    plan: Plan,
    site: Site,
    *,
    attempt: int = 1,
    budget_usd: float | None = None,
    overlay: dict[str, Any] | None = None,
) -> Rendered:
    """The manifests of one attempt at `plan` in the namespace of `site`.

    Raises Failure(BAD_EXPERIMENT) with everything that the site lacks, or with every problem of the overlay;
    Failure(UNSUPPORTED) if the plan does not fit into a ConfigMap; Failure(UNAUTHORIZED) if a key would go to a host
    that the site does not bind it to.
    """
    require_bound_hosts(plan, site)
    namespace, values = run_values(plan, site, attempt, budget_usd)
    placeholder = _placeholder(namespace, values)
    patches = (
        Overlay(overlay, {s.kind for s in plan.stages}, {s.name for s in plan.stages}) if overlay else None
    )
    text = helm.template(
        chart_directory(),
        release=plan.run_id,
        namespace=namespace,
        values=_named(values, placeholder).to_json(),
    )
    unnamed = canonical(_objects(plan, text, patches)).replace(placeholder.encode(), NO_HASH.encode())
    manifest_hash = hashlib.sha256(unnamed).hexdigest()[: len(NO_HASH)]
    values = _named(values, manifest_hash)
    # Equal to rendering again with these values, which would take as long as everything else.
    objects = _objects(plan, text.replace(placeholder, manifest_hash), patches)
    config_map = next(item for item in objects if item["kind"] == "ConfigMap")
    _check_size(plan, config_map)
    return Rendered(
        run_id=plan.run_id,
        attempt=attempt,
        manifest_hash=manifest_hash,
        namespace=namespace,
        objects=tuple(objects),
        stage_jobs={
            stage.name: json.loads(config_map["data"][_job_key(stage.name)]) for stage in plan.stages
        },
        conductor_job=next(item["metadata"]["name"] for item in objects if item["kind"] == "Job"),
        values=values.to_json(),
    )


def of_try(job: dict[str, Any], number: int) -> dict[str, Any]:
    """The manifest of a try at a stage: `job` with the name and label of that try."""
    made = copy.deepcopy(job)
    base, _, _ = job["metadata"]["name"].rpartition("-t")
    made["metadata"]["name"] = f"{base}-t{number}"
    made["metadata"]["labels"][TRY_LABEL] = str(number)
    made["spec"]["template"]["metadata"]["labels"][TRY_LABEL] = str(number)
    return made


def _named(values: Values, manifest_hash: str) -> Values:
    return values.model_copy(update={"run": values.run.model_copy(update={"manifest": manifest_hash})})


def _placeholder(namespace: str, values: Values) -> str:
    """A manifest hash that occurs nowhere in the values: there are more of them than a ConfigMap has characters."""
    written = json.dumps([namespace, values.to_json()])
    return next(text for n in reversed(range(16**5)) if (text := f"{n:05x}") not in written)


def _job_key(stage: str) -> str:
    return f"job-{stage}.json"


def _objects(plan: Plan, text: str, overlay: Overlay | None) -> list[dict[str, Any]]:
    """The chart's objects in the order to apply, with the overlay merged into every pod template."""
    objects = [item for item in yaml.load_all(text, Loader=_BaseLoader) if item]
    objects.sort(key=lambda item: _ORDER.index(item["kind"]))
    if overlay is not None:
        _apply_overlay(overlay, plan, objects)
    return objects


def _apply_overlay(overlay: Overlay, plan: Plan, objects: list[dict[str, Any]]) -> None:
    """Merge the overlay into the objects in place. Raises Failure with everything that it would break."""
    problems: list[str] = []
    data = next(item for item in objects if item["kind"] == "ConfigMap")["data"]
    for stage in plan.stages:
        job = json.loads(data[_job_key(stage.name)])
        before = job["spec"]["template"]
        after = overlay.over_stage(before, kind=stage.kind, name=stage.name)
        problems += template_problems(stage.name, before, after, "stage")
        job["spec"]["template"] = after
        data[_job_key(stage.name)] = canonical(job).decode()
    job = next(item for item in objects if item["kind"] == "Job")
    before = job["spec"]["template"]
    job["spec"]["template"] = overlay.over_conductor(before)
    problems += template_problems("conductor", before, job["spec"]["template"], "conductor")
    if problems:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the overlay would break the run",
            where="--overlay",
            problems=tuple(problems),
            next_step="remove what is listed from the overlay",
        )


def _check_size(plan: Plan, config_map: dict[str, Any]) -> None:
    size_bytes = sum(len(key.encode()) + len(text.encode()) for key, text in config_map["data"].items())
    if size_bytes > CONFIG_MAP_LIMIT_BYTES:
        raise Failure(
            Reason.UNSUPPORTED,
            f"the plan and its Jobs take {size_bytes >> 10} KiB; the limit for a ConfigMap is "
            f"{CONFIG_MAP_LIMIT_BYTES >> 10} KiB",
            where=plan.run_id,
            next_step="compare fewer contenders or seeds in one experiment",
        )
