"""The site file: a namespace's facts, in a file of their own; names of secrets, never their values.

Default place: `tuneyard/site.yaml` in the user's config directory. A laptop needs none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from launcher.outcome import Failure, Reason
from launcher.spec import catalog, literal_secrets
from launcher.spec.catalog import GpuPrice, HostedPrice, Prices
from launcher.spec.documents import read_yaml
from launcher.spec.providers import DEFAULT_PROVIDER, provider_name, web_address
from launcher.spec.strict import Strict, describe

FORMAT = 1


def _by_digest(image: str) -> str:
    if not re.fullmatch(r"[\w.\-/:]+@sha256:[0-9a-f]{64}", image):
        raise ValueError("an image is named by digest: name@sha256:<64 hex digits>")
    return image


ImageReference = Annotated[str, AfterValidator(_by_digest)]


def _kubernetes_name(name: str) -> str:
    label = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    if len(name) > 253 or not re.fullmatch(rf"{label}(\.{label})*", name):
        raise ValueError("the name of a Secret or other object: a-z, 0-9, '-' and '.'")
    return name


def _label(name: str) -> str:
    if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        raise ValueError("at most 63 of a-z, 0-9 and '-', neither first nor last '-'")
    return name


class SecretKey(Strict):
    """One key of one Secret. A value can be given nowhere in this file."""

    secret: Annotated[str, AfterValidator(_kubernetes_name)]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=253)]


class StoreAddresses(Strict):
    """The same store as seen from this machine and from a pod."""

    outside: str | None = None
    inside: str | None = None


class Images(Strict):
    """The images of a run's pods, by digest."""

    trainer: ImageReference | None = None
    worker: ImageReference | None = None
    conductor: ImageReference | None = None


class Secrets(Strict):
    """Which Secret holds what, per purpose."""

    store_access_key: SecretKey | None = None
    store_secret_key: SecretKey | None = None
    hub_token: SecretKey | None = None
    openai_api_key: SecretKey | None = None
    #: API keys of other providers of the catalogue, by provider.
    provider_api_keys: dict[Annotated[str, AfterValidator(provider_name)], SecretKey] = {}

    def api_key(self, provider: str) -> SecretKey | None:
        """The Secret with the API key of `provider`."""
        if provider == DEFAULT_PROVIDER and self.openai_api_key is not None:
            return self.openai_api_key
        return self.provider_api_keys.get(provider)

    def named(self) -> dict[str, SecretKey]:
        """Every Secret's key that the site names, by field: `hub_token`, `provider_api_keys.<provider>`."""
        single = {field: value for field, value in self if isinstance(value, SecretKey)}
        return single | {f"provider_api_keys.{name}": key for name, key in self.provider_api_keys.items()}


class ServiceAccount(Strict):
    """Who the pods are. By default each run makes its own; a platform team may give one instead."""

    create: bool = True
    #: An existing one for the conductor, with `create: false`.
    name: Annotated[str, AfterValidator(_kubernetes_name)] | None = None
    #: False: the rights are given already, and no Role or RoleBinding is made.
    create_role: bool = True
    #: An existing one for stage pods, whose identity the store knows. They have no token either way.
    stages: Annotated[str, AfterValidator(_kubernetes_name)] | None = None

    @model_validator(mode="after")
    def _named_or_made(self) -> ServiceAccount:
        if self.create == (self.name is not None):
            raise ValueError("name one with create: false, or leave the name out and create: true")
        return self


class ProviderUrl(Strict):
    """An address that may receive the API key of a provider besides the provider's own."""

    provider: Annotated[str, AfterValidator(provider_name)]
    url: Annotated[str, AfterValidator(web_address)]
    #: Needed for http beyond this machine: anybody on the way can read the key.
    allow_http: bool = False


class Site(Strict):
    """Facts of one namespace (or of one laptop: then only `store.outside` matters)."""

    format: Literal[1] = 1
    namespace: Annotated[str, AfterValidator(_label)] | None = None
    store: StoreAddresses = StoreAddresses()
    images: Images = Images()
    secrets: Secrets = Secrets()
    service_account: ServiceAccount = ServiceAccount()
    pull_secrets: list[Annotated[str, AfterValidator(_kubernetes_name)]] = []
    queue: Annotated[str, AfterValidator(_label)] | None = None
    certificate_authority_config_map: Annotated[str, AfterValidator(_kubernetes_name)] | None = None
    cache_claim: Annotated[str, AfterValidator(_kubernetes_name)] | None = None
    #: How long a stage's pod may take to start: images, volumes, a free GPU.
    start_timeout_s: Annotated[int, Field(ge=1, le=86400)] = 900
    #: Whether submit refuses a pod that no node of now could take. False where nodes are made when pods want them.
    check_nodes: bool = True
    #: Where an experiment's `base_url` may send a key, see `key_hosts`.
    provider_urls: list[ProviderUrl] = []
    gpu_hour_usd: list[GpuPrice] = []
    hosted_per_million_tokens_usd: list[HostedPrice] = []

    def prices(self) -> Prices:
        """The catalogue's prices, with this site's own in place of the catalogue's."""
        return catalog.prices().extended(self.gpu_hour_usd, self.hosted_per_million_tokens_usd)


def default_path() -> Path:
    """`$XDG_CONFIG_HOME/tuneyard/site.yaml`, `~/.config` where that is not set."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "tuneyard" / "site.yaml"


def load(path: Path | None) -> Site:
    """The site at `path`; without one, the user's default file, or an empty site where there is none.

    Raises Failure(MISSING_INPUT) for a named file that cannot be read, Failure(BAD_EXPERIMENT)
    with every problem of its content.
    """
    chosen = path or default_path()
    if path is None and not chosen.exists():
        return Site()
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Failure(Reason.MISSING_INPUT, f"cannot read the site file: {why}", where=str(chosen)) from None
    document: Any = read_yaml(text, str(chosen))
    if secrets := literal_secrets.problems(document):
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the site file contains secrets: it names them only",
            where=str(chosen),
            problems=tuple(secrets),
            next_step="create a Secret in the cluster and name it and its key in the site file",
        )
    try:
        return Site.model_validate({} if document is None else document)
    except ValidationError as error:
        raise Failure(
            Reason.BAD_EXPERIMENT,
            "the site file is not valid",
            where=str(chosen),
            # What was given is not repeated: it may be a secret in the wrong place.
            problems=tuple(re.sub(r" \(got .*", "", line, flags=re.DOTALL) for line in describe(error)),
            next_step="correct the site file",
        ) from None
