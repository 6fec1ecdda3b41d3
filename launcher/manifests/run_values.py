"""Plan and site -> the chart's values, or everything that the site file lacks for the plan. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from launcher.costs.estimate import scratch_gib
from launcher.manifests import chart_values
from launcher.manifests.chart_values import Values
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec import literal_secrets
from launcher.spec.plan import Plan, Stage, canonical, needs_torch
from launcher.spec.providers import DEFAULT_PROVIDER, Provider, stage_provider
from launcher.spec.site import SecretKey, Site
from launcher.spec.stages import (
    FetchSettings,
    HostedPredictSettings,
    HubData,
    HubModel,
    PackagedModel,
    TuneSettings,
)
from launcher.spec.strict import describe
from launcher.store import address
from launcher.store.records import Request

NAME_LIMIT_CHARACTERS = 60
#: Placeholder for the manifest hash.
NO_HASH = "00000"
#: Exit codes that do not close an attempt: success, and those of an evicted pod.
_NOT_CLOSING = (0, 137, 143)
#: How long a stage's pod may take to save its progress, unless an overlay changes it.
GRACE_TRAINER_S, _GRACE_S = 120, 30
#: /dev/shm is an eighth of the memory: NCCL dies on the runtime's 64 MiB.
_SHM_SHARE, _SHM_LIMIT_MIB = 8, 16 << 10

_EXAMPLE = """put it into the site file (--site FILE), for example
  namespace: tuning
  store: {inside: "s3://bucket/prefix?region=eu-west-1"}
  images: {trainer: registry.example/trainer@sha256:<64 hex digits>, worker: …, conductor: …}
  secrets: {openai_api_key: {secret: openai, key: api_key}}"""


def run_values(plan: Plan, site: Site, attempt: int, budget_usd: float | None) -> tuple[str, Values]:
    """Namespace and values for Helm, with `NO_HASH` as manifest hash.

    Raises Failure(BAD_EXPERIMENT) with everything that the site lacks or that Kubernetes cannot express.
    """
    problems = _lacking(plan, site)
    namespace, address, conductor = site.namespace, site.store.inside, site.images.conductor
    if problems or namespace is None or address is None or conductor is None:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the run cannot be rendered for this site",
            where=plan.run_id,
            problems=tuple(problems),
            next_step=_EXAMPLE,
        )
    codes = sorted({d.exit_code for d in DISPOSITIONS.values()} - set(_NOT_CLOSING))
    try:
        values = Values(
            run=chart_values.Run(id=plan.run_id, attempt=attempt, manifest=NO_HASH),
            plan=plan.to_bytes().decode(),
            request=canonical(Request.of(site, "cluster", budget_usd).to_json()).decode(),
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
            "the run does not fit into Kubernetes objects",
            where=plan.run_id,
            problems=tuple(describe(error)),
            next_step="correct what is listed in the site file or the experiment",
        ) from None
    _refuse_secrets(plan, values)
    return namespace, values


def _refuse_secrets(plan: Plan, values: Values) -> None:
    """A site that was made in Python, without a file, is checked here."""
    of_site = {key: value for key, value in values.to_json().items() if key not in ("plan", "request")}
    if problems := literal_secrets.problems(of_site):
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the chart values would contain secrets",
            where=plan.run_id,
            problems=tuple(problems),
            next_step="create a Secret in the cluster and name it and its key in the site",
        )


def image_of(stage: Stage) -> str:
    """The image that a stage runs in: `trainer` if it needs torch, else `worker`."""
    return "trainer" if needs_torch(stage) else "worker"


def _lacking(plan: Plan, site: Site) -> list[str]:
    """What the site file lacks for this plan, each with the stages that need it."""
    problems = []
    if site.namespace is None:
        problems.append("namespace: not set")
    if site.store.inside is None:
        problems.append("store.inside: not set; pods reach the store by it")
    elif not site.store.inside.startswith("s3://"):
        problems.append("store.inside: must be s3://…; pods share no directory")
    else:
        problems += [f"store.inside: {problem}" for problem in _address_problems(site.store.inside)]
    users = {"conductor": ["the conductor"]}
    for stage in plan.stages:
        users.setdefault(image_of(stage), []).append(stage.name)
    for image, names in users.items():
        if getattr(site.images, image) is None:
            problems.append(f"images.{image}: not set; needed by {', '.join(names)}")
    unkeyed: dict[str, list[str]] = {}
    for stage in plan.stages:
        provider = _service_of(stage)
        if provider is not None and site.secrets.api_key(provider.name) is None:
            unkeyed.setdefault(provider.name, []).append(stage.name)
    for name, stages in unkeyed.items():
        key = "openai_api_key" if name == DEFAULT_PROVIDER else f"provider_api_keys.{name}"
        problems.append(f"secrets.{key}: not set; needed by {', '.join(stages)}")
    if (site.secrets.store_access_key is None) != (site.secrets.store_secret_key is None):
        problems.append("secrets: set both store_access_key and store_secret_key, or neither")
    several = [stage.name for stage in plan.stages if stage.resources.nodes > 1]
    if several and not plan.run_id[0].isalpha():
        problems.append(f"{several[0]}: its Service's name must begin with a letter; rename the experiment")
    for stage in plan.stages:
        # Two digits are reserved for the number of the try.
        longest = len(f"{plan.run_id}-{stage.name}-{NO_HASH}-t99")
        if longest > NAME_LIMIT_CHARACTERS:
            over = longest - NAME_LIMIT_CHARACTERS
            problems.append(
                f"{stage.name}: its Job's name is {over} characters too long; "
                "shorten the experiment's or the contender's name"
            )
    return problems


def _address_problems(inside: str) -> tuple[str, ...]:
    """Problems of a store address for pods; the address is not repeated because it may hold a secret."""
    try:
        parsed = address.parse(inside)
    except Failure as failure:
        return failure.problems
    return ("profile: pods have no profiles; name the Secret's keys under secrets",) if parsed.profile else ()


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
        egress=_egress(stage),
        hub_token=_key(site.secrets.hub_token) if from_hub else None,
        openai_api_key=_key(site.secrets.api_key(provider.name)) if provider is not None else None,
        api_key_file_variable=(
            None if provider is None or provider.name == DEFAULT_PROVIDER else provider.key_file_variable
        ),
    )


def _egress(stage: Stage) -> Literal["downloads", "hosted"] | None:
    """What the stage must reach on the internet; everything else stays closed to it."""
    settings = stage.typed_settings()
    if isinstance(settings, FetchSettings):
        return "downloads" if isinstance(settings.source, HubModel | HubData | PackagedModel) else None
    return "hosted" if _service_of(stage) is not None else None


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
