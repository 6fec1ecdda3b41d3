"""Address and credentials of the API server: a pod's service account, or a kubeconfig.

The official client reads both. Its message about a broken kubeconfig can repeat a user's whole entry, token
included, so only parts of it that cannot hold a secret are passed on.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader, KubeConfigMerger

from launcher.outcome import Failure, Reason

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Access:
    """The API server's address, credentials and default namespace."""

    configuration: Any  # kubernetes.client.configuration.Configuration
    namespace: str
    source: str  # for messages: a path, or "the pod's service account"


def load(context: str | None) -> Access:
    """Credentials as kubectl finds them; `context` names one of the kubeconfig's contexts.

    Raises Failure(UNAUTHORIZED) if there are none or they cannot be used.
    """
    configuration = Configuration()
    configuration.keep_alive = True  # so that a watch through a load balancer notices a lost connection
    configuration.retries = False  # connection.py retries, bounded in time
    explicit = context is not None or "KUBECONFIG" in os.environ
    if not explicit and "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return _from_service_account(configuration)
    return _from_kubeconfig(configuration, context)


def _from_service_account(configuration: Any) -> Access:
    source = "the pod's service account"
    try:
        load_incluster_config(configuration)
        namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (ConfigException, OSError) as error:
        raise Failure(
            Reason.UNAUTHORIZED,
            f"the service account mounted in this pod cannot be used: {_harmless(error)}",
            next_step="give the pod a service account with automountServiceAccountToken: true",
        ) from None
    return Access(configuration, namespace, source)


def _from_kubeconfig(configuration: Any, context: str | None) -> Access:
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    errors = _Collected()
    root = logging.getLogger()
    # The client logs an exec plugin's failure and continues without credentials.
    root.addHandler(errors)
    try:
        merged = KubeConfigMerger(paths)
        if merged.config is None:
            raise Failure(
                Reason.UNAUTHORIZED,
                "there is no kubeconfig",
                where=paths,
                next_step="set KUBECONFIG, or log in to the cluster with its own tool",
            )
        _check_context(merged.config, context, paths)
        loader = KubeConfigLoader(
            merged.config, context, config_base_path=None, config_persister=merged.save_changes
        )
        loader.load_and_set(configuration)
        chosen = loader.current_context
    except (ConfigException, yaml.YAMLError, OSError, TypeError, ValueError, KeyError) as error:
        raise Failure(
            Reason.UNAUTHORIZED,
            f"the kubeconfig cannot be used: {_harmless(error)}",
            where=paths,
            next_step="kubectl config view shows what is configured",
        ) from None
    finally:
        root.removeHandler(errors)
    if errors.messages:
        raise Failure(
            Reason.UNAUTHORIZED,
            "the kubeconfig's credentials could not be loaded",
            where=paths,
            problems=tuple(errors.messages),
            next_step="log in to the cluster with its own tool, then try again",
        )
    namespace = dict(chosen["context"]).get("namespace") or "default"
    return Access(configuration, str(namespace), paths)


def _check_context(config: Any, context: str | None, paths: str) -> None:
    """Raises Failure(USAGE) if the named context does not exist."""
    listed = config.value.get("contexts") or []
    names = [str(item["name"]) for item in listed if isinstance(item, ConfigNode) and "name" in item]
    if context is None or context in names:
        return
    raise Failure(
        Reason.USAGE,
        f"no context '{context}' in the kubeconfig, which has {', '.join(names) or 'none'}",
        where=paths,
        next_step=f"name one of them: --context {names[0]}"
        if names
        else "log in to the cluster with its own tool, then kubectl config get-contexts",
    )


class _Collected(logging.Handler):
    """Collects the errors that the client logs while it loads credentials."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(_without_content(record.getMessage()))


def _harmless(error: Exception) -> str:
    """The message of a configuration error, without any content of the file."""
    if isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        return f"line {line} is not YAML ({error.problem})"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if isinstance(error, ConfigException):
        return _without_content(str(error))
    return "it is not a kubeconfig"


def _without_content(text: str) -> str:
    return re.sub(r"[{\[](?!name=).*[}\]]", "…", text, flags=re.DOTALL)[:500]
