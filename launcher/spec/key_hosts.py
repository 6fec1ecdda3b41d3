"""Hosts that may receive an API key: the provider's own https URL, and those that the site file binds to it.

An experiment may come from anybody (a pull request, a bucket), and its `base_url` names any host. The site file is the
user's own. So the experiment alone never decides where a key goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan
from launcher.spec.providers import Provider, stage_provider
from launcher.spec.site import Site
from launcher.spec.stages import HostedPredictSettings, TuneSettings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class KeyUse:
    """A contender whose stages send the key of `provider` to `url`. `problem` is empty if they may."""

    contender: str
    provider: str
    url: str
    problem: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


def key_uses(plan: Plan, site: Site) -> list[KeyUse]:
    """Every contender that sends a key to a `base_url` of the experiment, once for each address."""
    found: dict[KeyUse, None] = {}
    for stage in plan.stages:
        settings = stage.typed_settings()
        if not isinstance(settings, TuneSettings | HostedPredictSettings) or settings.base_url is None:
            continue
        provider = stage_provider(settings.provider, rehearsed=settings.rehearsal is not None)
        problem = _problem(provider, settings.base_url, site)
        found[KeyUse(stage.contender or stage.name, provider.name, settings.base_url, problem)] = None
    return list(found)


def require_bound_hosts(plan: Plan, site: Site) -> None:
    """Raises Failure(UNAUTHORIZED), naming each host, if a key would go where the site file does not bind it."""
    refused = [use for use in key_uses(plan, site) if use.problem]
    if refused:
        entries = ", ".join(dict.fromkeys(_entry(use) for use in refused))
        raise Failure(
            Reason.UNAUTHORIZED,
            "the experiment would send an API key to a host that the site file does not bind it to",
            where=plan.run_id,
            problems=tuple(
                f"contender {use.contender}: the key of {use.provider} to {use.host}: {use.problem}"
                for use in refused
            ),
            next_step=f"if you trust the host, add to the site file: provider_urls: [{entries}]",
        )


def _problem(provider: Provider, url: str, site: Site) -> str:
    bound = [one for one in site.provider_urls if one.provider == provider.name and _same(one.url, url)]
    own = provider.base_url is not None and _same(provider.base_url, url)
    if not bound and not (own and url.startswith("https://")):
        return "not bound"
    if _is_open_http(url) and not any(one.allow_http for one in bound):
        return "http without encryption, and allow_http is not set"
    return ""


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _is_open_http(url: str) -> bool:
    return url.startswith("http://") and urlsplit(url).hostname not in _LOOPBACK


def _entry(use: KeyUse) -> str:
    http = ", allow_http: true" if _is_open_http(use.url) else ""
    return f'{{provider: {use.provider}, url: "{use.url}"{http}}}'
