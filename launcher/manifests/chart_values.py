"""The values of charts/run as types: `render` fills them in, and values.schema.json is generated from them.

They exclude what Kubernetes' own schemas accept by mistake (invalid names, quantities such as `16GiB`): amounts are
whole numbers of one unit, names are checked here and by the schema. The chart's README repeats every description.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from launcher.spec.stages import StageKind
from launcher.spec.strict import Strict

#: A DNS-1123 label, and a name of one or several labels.
_LABEL = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
_NAME = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"

Label = Annotated[str, Field(pattern=_LABEL, max_length=63)]
Name = Annotated[str, Field(pattern=_NAME, max_length=253)]
#: The value of a label, such as the product name of a GPU.
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=63)]
Image = Annotated[str, Field(pattern=r"^[a-z0-9][a-zA-Z0-9._/:-]*@sha256:[0-9a-f]{64}$")]
StoreAddress = Annotated[str, Field(pattern=r"^s3://[^@\s]+$")]
Document = Annotated[str, Field(pattern=r"^\{[\s\S]*\}\s*$")]
Gib = Annotated[int, Field(ge=1, le=65536)]


class Part(Strict):
    """Keys are in camelCase, as in Kubernetes; unknown keys are an error."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class Run(Part):
    """The run and attempt that a release carries out."""

    id: Annotated[Label, Field(max_length=25, description="The run's id; also the name of the release.")]
    attempt: Annotated[int, Field(ge=1, le=999, description="Number of the attempt at the run.")]
    manifest: Annotated[
        str,
        Field(
            pattern=r"^[0-9a-f]{5}$",
            description="First digits of the rendered objects' digest; every object's name ends in it.",
        ),
    ]


class SecretKey(Part):
    """One key of one Secret."""

    secret: Annotated[Name, Field(description="Name of a Secret in the run's namespace.")]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=253, description="Key of the Secret.")]


class StoreCredentials(Part):
    """Keys of the Secret with the credentials of the store."""

    access_key: Annotated[SecretKey, Field(description="The access key.")]
    secret_key: Annotated[SecretKey, Field(description="The secret key.")]


class Store(Part):
    """The store as pods reach it."""

    address: Annotated[StoreAddress, Field(description="The store's address for pods.")]
    credentials: Annotated[
        StoreCredentials | None,
        Field(description="Mounted into every pod as files. Unset: pods use their own identity."),
    ] = None


class ServiceAccount(Part):
    """The identity of the pods."""

    create: Annotated[bool, Field(description="Create one for this run. False: `name` exists already.")] = (
        True
    )
    name: Annotated[
        Name | None, Field(description="An existing ServiceAccount for the conductor, with `create: false`.")
    ] = None
    create_role: Annotated[
        bool, Field(description="Create Role and RoleBinding. False: the platform grants the permissions.")
    ] = True
    stages: Annotated[
        Name | None,
        Field(
            description="ServiceAccount of stage pods (pod identity for the store). No token is mounted either way."
        ),
    ] = None


class Conductor(Part):
    """The conductor's Job."""

    image: Annotated[Image, Field(description="Image of the conductor, by digest.")]
    start_timeout_s: Annotated[
        int, Field(ge=1, le=86400, description="How long a stage's pod may take to start.")
    ]
    closing_exit_codes: Annotated[
        list[Annotated[int, Field(ge=1, le=255)]],
        Field(
            min_length=1,
            description="Exit codes that close the attempt; after any other the conductor is restarted.",
        ),
    ]


class Stage(Part):
    """One stage's Job."""

    name: Annotated[Label, Field(description="The stage's name in the plan.")]
    kind: Annotated[StageKind, Field(description="The stage's kind.")]
    image: Annotated[Image, Field(description="Image of the pod, by digest.")]
    cpus: Annotated[
        int, Field(ge=1, le=1024, description="Processors; a tenth less is requested, without a limit.")
    ]
    memory_gib: Annotated[Gib, Field(description="Memory, request and limit, `shmMib` included.")]
    scratch_gib: Annotated[Gib, Field(description="Size of /scratch, request and limit.")]
    grace_s: Annotated[
        int, Field(ge=1, le=3600, description="Time between SIGTERM and SIGKILL, for a checkpoint.")
    ]
    shm_mib: Annotated[
        int | None, Field(ge=1, description="Size of /dev/shm. Unset: the runtime's 64 MiB.")
    ] = None
    gpus: Annotated[int, Field(ge=0, le=64, description="GPUs per node.")] = 0
    device: Annotated[
        LabelValue | None,
        Field(description="Exact value of the node label nvidia.com/gpu.product; required with GPUs."),
    ] = None
    nodes: Annotated[
        int,
        Field(ge=1, le=64, description="Pods that work together; above 1, an Indexed Job and a Service."),
    ] = 1
    egress: Annotated[
        Literal["downloads", "hosted"] | None,
        Field(
            description="What the pod reaches beyond DNS and the store, as a label for NetworkPolicies: `downloads` (of"
            " models and data) or `hosted` (models). Unset: nothing."
        ),
    ] = None
    hub_token: Annotated[SecretKey | None, Field(description="Token of the model hub, as a file.")] = None
    openai_api_key: Annotated[
        SecretKey | None, Field(description="Key of the hosted service, as a file.")
    ] = None
    api_key_file_variable: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Z][A-Z0-9_]*$",
            description="Variable with the path of the hosted service's key. Unset: OPENAI_API_KEY_FILE.",
        ),
    ] = None


class Values(Part):
    """The values of charts/run."""

    run: Annotated[Run, Field(description="The run and the attempt at it.")]
    plan: Annotated[Document, Field(description="plan.json as text, byte for byte.")]
    request: Annotated[Document, Field(description="request.json as text: prices and budget.")]
    store: Annotated[Store, Field(description="The store of artifacts.")]
    conductor: Annotated[Conductor, Field(description="The pod that starts and watches stages.")]
    stages: Annotated[list[Stage], Field(min_length=1, description="Every stage of the plan.")]
    service_account: Annotated[ServiceAccount, Field(description="Identities of the pods.")] = (
        ServiceAccount()
    )
    image_pull_secrets: Annotated[list[Name], Field(description="Secrets for pulling images.")] = []
    certificate_authority_config_map: Annotated[
        Name | None, Field(description="ConfigMap whose key ca.crt all pods trust.")
    ] = None
    cache_claim: Annotated[
        Name | None,
        Field(description="PersistentVolumeClaim for verified copies of inputs. Unset: each pod's scratch."),
    ] = None
    queue: Annotated[Label | None, Field(description="Kueue LocalQueue for stage Jobs.")] = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for Helm without unset keys (Helm reads null as \"delete the default\")."""
        plain: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return plain


def schema() -> dict[str, Any]:
    """JSON Schema of `Values` in Helm's draft, closed at every level.

    It requires a product name for GPUs, and the name of an existing ServiceAccount.
    """
    made: dict[str, Any] = Values.model_json_schema(by_alias=True)
    made["$schema"] = "http://json-schema.org/draft-07/schema#"
    # draft-07 uses `definitions` and ignores keys beside a $ref.
    text = json.dumps(made).replace("#/$defs/", "#/definitions/")
    closed: dict[str, Any] = _without_siblings(json.loads(text))
    closed["definitions"] = closed.pop("$defs")
    closed["definitions"]["Stage"]["if"] = {"properties": {"gpus": {"minimum": 1}}, "required": ["gpus"]}
    closed["definitions"]["Stage"]["then"] = {"required": ["device"]}
    account = closed["definitions"]["ServiceAccount"]
    account["if"] = {"properties": {"create": {"const": False}}, "required": ["create"]}
    account["then"] = {"required": ["name"]}
    return closed


def _without_siblings(node: Any) -> Any:
    """Drop `null` (optional values are absent) and wrap a $ref beside other keys in allOf."""
    if isinstance(node, list):
        return [_without_siblings(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_siblings(value) for key, value in node.items() if key != "title"}
    if "anyOf" in kept:
        members = [member for member in kept.pop("anyOf") if member != {"type": "null"}]
        assert len(members) == 1, "a value has one type"
        kept = {**members[0], **{key: value for key, value in kept.items() if value is not None}}
    if "$ref" in kept and len(kept) > 1:
        kept = {"allOf": [{"$ref": kept.pop("$ref")}], **kept}
    return kept


def chart_directory() -> Path:
    """charts/run: beside the package in a checkout, inside the package in a wheel."""
    package = Path(__file__).parents[1]
    shipped = package / "charts" / "run"
    return shipped if shipped.is_dir() else package.parent / "charts" / "run"


__all__ = [
    "Conductor",
    "Literal",
    "Run",
    "SecretKey",
    "ServiceAccount",
    "Stage",
    "Store",
    "StoreCredentials",
    "Values",
    "chart_directory",
    "schema",
]
