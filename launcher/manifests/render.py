"""Plan and site -> chart values -> manifests. Pure: the same plan and site give the same bytes on any day.

What `launcher render` prints is what `launcher submit` applies. Every object's name ends in the manifest
hash, the first digits of a digest over all rendered objects: a changed image or namespace is a new object,
never a patch of an immutable one. It is known only after a first rendering with a placeholder.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from launcher.costs.estimate import scratch_gib
from launcher.manifests import chart_values, helm
from launcher.manifests.chart_values import Values, chart_directory
from launcher.manifests.overlay import Overlay, template_problems
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan, Stage, canonical, needs_torch
from launcher.spec.providers import DEFAULT_PROVIDER, Provider, stage_provider
from launcher.spec.site import SecretKey, Site
from launcher.spec.stages import FetchSettings, HostedPredictSettings, HubData, HubModel, TuneSettings
from launcher.spec.strict import describe
from launcher.store import address

RUN_LABEL = "tuneyard.dev/run"
ATTEMPT_LABEL = "tuneyard.dev/attempt"
MANIFEST_LABEL = "tuneyard.dev/manifest"
STAGE_LABEL = "tuneyard.dev/stage"
KIND_LABEL = "tuneyard.dev/kind"
TRY_LABEL = "tuneyard.dev/try"

#: Client-side apply fails between 255 and 300 KiB; the API server at 1 MiB.
CONFIG_MAP_LIMIT_BYTES = 240 << 10
NAME_LIMIT_CHARACTERS = 60
_NO_HASH = "00000"
_ORDER = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "Job")
#: Exit codes that do not close an attempt: success, and what only says that the pod was taken away.
_NOT_CLOSING = (0, 137, 143)
#: The longest that a stage's pod is given to save its progress, where no overlay says otherwise.
GRACE_TRAINER_S, _GRACE_S = 120, 30
#: /dev/shm is an eighth of the memory: NCCL dies on the runtime's 64 MiB.
_SHM_SHARE, _SHM_LIMIT_MIB = 8, 16 << 10

_EXAMPLE = """put it into the site file (--site FILE), for example
  namespace: tuning
  store: {inside: "s3://bucket/prefix?region=eu-west-1"}
  images: {trainer: registry.example/trainer@sha256:<64 hex digits>, worker: …, conductor: …}
  secrets: {openai_api_key: {secret: openai, key: api_key}}"""


@dataclass(frozen=True)
class Rendered:
    """A run's manifests. `objects` stand in the order to apply; `stage_jobs` are in the ConfigMap as well."""

    run_id: str
    attempt: int
    manifest_hash: str
    namespace: str
    objects: tuple[dict[str, Any], ...]
    stage_jobs: dict[str, dict[str, Any]]
    conductor_job: str
    values: dict[str, Any]

    def to_yaml(self) -> bytes:
        """All objects as YAML documents: what `launcher render` prints."""
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

    Raises Failure(BAD_EXPERIMENT) with everything that the site lacks at once, with every problem of the
    overlay, or where names or the ConfigMap grow too long.
    """
    namespace, values = _values(plan, site, attempt, budget_usd)
    placeholder = _absent(namespace, values)
    patches = (
        Overlay(overlay, {s.kind for s in plan.stages}, {s.name for s in plan.stages}) if overlay else None
    )
    text = helm.template(
        chart_directory(),
        release=plan.run_id,
        namespace=namespace,
        values=_named(values, placeholder).to_json(),
    )
    unnamed = canonical(_objects(plan, text, patches)).replace(placeholder.encode(), _NO_HASH.encode())
    manifest_hash = hashlib.sha256(unnamed).hexdigest()[: len(_NO_HASH)]
    values = _named(values, manifest_hash)
    # What Helm would give for these values, without asking it again: that takes as long as the rest.
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
    """The manifest of a later try at a stage: another name and label, nothing else."""
    made = copy.deepcopy(job)
    base, _, _ = job["metadata"]["name"].rpartition("-t")
    made["metadata"]["name"] = f"{base}-t{number}"
    made["metadata"]["labels"][TRY_LABEL] = str(number)
    made["spec"]["template"]["metadata"]["labels"][TRY_LABEL] = str(number)
    return made


def request(site: Site, budget_usd: float | None) -> dict[str, Any]:
    """What an attempt on a cluster is asked for besides its plan: prices and a cap."""
    return {
        "format": 1,
        "target": "cluster",
        "gpu_hour_usd": [price.model_dump(mode="json") for price in site.gpu_hour_usd],
        "hosted_per_million_tokens_usd": [
            price.model_dump(mode="json") for price in site.hosted_per_million_tokens_usd
        ],
        "budget_usd": budget_usd,
    }


def image_of(stage: Stage) -> str:
    """Which image a stage runs in: `trainer` where it needs torch, else `worker`."""
    return "trainer" if needs_torch(stage) else "worker"


def object_yaml(item: dict[str, Any]) -> bytes:
    """One object as YAML, in a form that every reader of YAML takes for the same."""
    text: str = yaml.dump(item, Dumper=_Dumper, sort_keys=True, width=1 << 30, allow_unicode=True)
    return text.encode()


_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    # PyYAML takes 2e-05 and 12e45 for words and would leave them bare; Go reads numbers there.
    style = "|" if "\n" in text else "'" if text[:1] in "0123456789+-." else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _values(plan: Plan, site: Site, attempt: int, budget_usd: float | None) -> tuple[str, Values]:
    """Namespace and values for Helm, without the manifest hash."""
    problems = _lacking(plan, site)
    namespace, address, conductor = site.namespace, site.store.inside, site.images.conductor
    if problems or namespace is None or address is None or conductor is None:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the site does not say what the plan needs on a cluster",
            where=plan.run_id,
            problems=tuple(problems),
            next_step=_EXAMPLE,
        )
    codes = sorted({d.exit_code for d in DISPOSITIONS.values()} - set(_NOT_CLOSING))
    try:
        return namespace, Values(
            run=chart_values.Run(id=plan.run_id, attempt=attempt, manifest=_NO_HASH),
            plan=plan.to_bytes().decode(),
            request=canonical(request(site, budget_usd)).decode(),
            store=chart_values.Store(address=address, credentials=_credentials(site)),
            conductor=chart_values.Conductor(
                image=conductor, start_timeout_s=site.start_timeout_s, closing_exit_codes=codes
            ),
            stages=[_stage(plan, stage, site) for stage in plan.stages],
            service_account=chart_values.ServiceAccount(**site.service_account.model_dump()),
            image_pull_secrets=site.pull_secrets,
            certificate_authority_config_map=site.certificate_authority_config_map,
            cache_claim=site.cache_claim,
            queue=site.queue,
        )
    except ValidationError as error:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the run cannot be said in Kubernetes' terms",
            where=plan.run_id,
            problems=tuple(describe(error)),
            next_step="correct what is listed in the site file or the experiment",
        ) from None


def _named(values: Values, manifest_hash: str) -> Values:
    return values.model_copy(update={"run": values.run.model_copy(update={"manifest": manifest_hash})})


def _absent(namespace: str, values: Values) -> str:
    """A manifest hash that stands in nothing Helm gets: there are more of them than a ConfigMap has places."""
    written = json.dumps([namespace, values.to_json()])
    return next(text for n in reversed(range(16**5)) if (text := f"{n:05x}") not in written)


def _lacking(plan: Plan, site: Site) -> list[str]:
    """What the site would have to say for this plan, each with who needs it."""
    problems = []
    if site.namespace is None:
        problems.append("namespace: not given")
    if site.store.inside is None:
        problems.append("store.inside: not given; pods reach the store by it")
    elif not site.store.inside.startswith("s3://"):
        problems.append("store.inside: must be s3://…; pods have no directory in common")
    else:
        problems += [f"store.inside: {problem}" for problem in _address_problems(site.store.inside)]
    users = {"conductor": ["the conductor"]}
    for stage in plan.stages:
        users.setdefault(image_of(stage), []).append(stage.name)
    for image, names in users.items():
        if getattr(site.images, image) is None:
            problems.append(f"images.{image}: not given; needed by {', '.join(names)}")
    unkeyed: dict[str, list[str]] = {}
    for stage in plan.stages:
        provider = _service_of(stage)
        if provider is not None and site.secrets.api_key(provider.name) is None:
            unkeyed.setdefault(provider.name, []).append(stage.name)
    for name, stages in unkeyed.items():
        key = "openai_api_key" if name == DEFAULT_PROVIDER else f"provider_api_keys.{name}"
        problems.append(f"secrets.{key}: not given; needed by {', '.join(stages)}")
    if (site.secrets.store_access_key is None) != (site.secrets.store_secret_key is None):
        problems.append("secrets: store_access_key and store_secret_key are given both or not at all")
    several = [stage.name for stage in plan.stages if stage.resources.nodes > 1]
    if several and not plan.run_id[0].isalpha():
        problems.append(
            f"{several[0]}: runs on several nodes, and a Service's name begins with a letter: so must the experiment's"
        )
    for stage in plan.stages:
        # Two digits are kept free for the number of the try.
        longest = len(f"{plan.run_id}-{stage.name}-{_NO_HASH}-t99")
        if longest > NAME_LIMIT_CHARACTERS:
            over = longest - NAME_LIMIT_CHARACTERS
            problems.append(
                f"{stage.name}: its Job's name would be {over} characters too long; "
                "shorten the experiment's or the contender's name"
            )
    return problems


def _address_problems(inside: str) -> tuple[str, ...]:
    """What is wrong with a store's address for pods; it is not repeated, for it may hold a secret."""
    try:
        parsed = address.parse(inside)
    except Failure as failure:
        return failure.problems
    return ("profile: a pod has none; name the Secret's keys under secrets",) if parsed.profile else ()


def _stage(plan: Plan, stage: Stage, site: Site) -> chart_values.Stage:
    trainer = image_of(stage) == "trainer"
    resources = stage.resources
    settings = stage.typed_settings()
    provider = _service_of(stage)
    from_hub = isinstance(settings, FetchSettings) and isinstance(settings.source, HubModel | HubData)
    return chart_values.Stage(
        name=stage.name,
        kind=stage.kind,
        image=site.images.trainer or "" if trainer else site.images.worker or "",
        cpus=resources.cpus,
        memory_gib=resources.memory_gib,
        scratch_gib=scratch_gib(plan, stage),
        grace_s=GRACE_TRAINER_S if trainer else _GRACE_S,
        shm_mib=min(resources.memory_gib * 1024 // _SHM_SHARE, _SHM_LIMIT_MIB) if trainer else None,
        gpus=resources.gpus,
        device=resources.device if resources.gpus else None,
        nodes=resources.nodes,
        hub_token=_key(site.secrets.hub_token) if from_hub else None,
        openai_api_key=_key(site.secrets.api_key(provider.name)) if provider is not None else None,
        api_key_file_variable=(
            None if provider is None or provider.name == DEFAULT_PROVIDER else provider.key_file_variable
        ),
    )


def _service_of(stage: Stage) -> Provider | None:
    """The provider whose API key a stage needs."""
    settings = stage.typed_settings()
    if not isinstance(settings, TuneSettings | HostedPredictSettings) or settings.rehearsal is not None:
        return None
    return stage_provider(settings.provider, rehearsed=False)


def _credentials(site: Site) -> chart_values.StoreCredentials | None:
    access_key, secret_key = _key(site.secrets.store_access_key), _key(site.secrets.store_secret_key)
    if access_key is None or secret_key is None:
        return None
    return chart_values.StoreCredentials(access_key=access_key, secret_key=secret_key)


def _key(named: SecretKey | None) -> chart_values.SecretKey | None:
    return chart_values.SecretKey(secret=named.secret, key=named.key) if named else None


def _job_key(stage: str) -> str:
    return f"job-{stage}.json"


def _objects(plan: Plan, text: str, overlay: Overlay | None) -> list[dict[str, Any]]:
    """The chart's objects in the order to apply, with the overlay merged into every pod template."""
    objects = [item for item in yaml.load_all(text, Loader=_BaseLoader) if item]
    objects.sort(key=lambda item: _ORDER.index(item["kind"]))
    if overlay is not None:
        _apply(overlay, plan, objects)
    return objects


def _apply(overlay: Overlay, plan: Plan, objects: list[dict[str, Any]]) -> None:
    """Merge the overlay in place. Raises Failure with everything that it would break."""
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
            next_step="take what is listed out of the overlay",
        )


def _check_size(plan: Plan, config_map: dict[str, Any]) -> None:
    size_bytes = sum(len(key.encode()) + len(text.encode()) for key, text in config_map["data"].items())
    if size_bytes > CONFIG_MAP_LIMIT_BYTES:
        raise Failure(
            Reason.UNSUPPORTED,
            f"the plan and its Jobs take {size_bytes >> 10} KiB, a ConfigMap may hold "
            f"{CONFIG_MAP_LIMIT_BYTES >> 10}",
            where=plan.run_id,
            next_step="compare fewer contenders or seeds in one experiment",
        )
