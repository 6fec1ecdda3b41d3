"""The values of charts/run, strictly typed: what `render` fills in, and what values.schema.json is made of.

Whatever Kubernetes' own schemas let pass (names that are none, quantities such as `16GiB`) cannot be
said in these values: amounts are whole numbers of one unit, names are checked here and by the schema.
Every description stands in the chart's README as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from launcher.spec.stages import StageKind
from launcher.spec.strict import Strict

#: A DNS-1123 label, and a name that may have several of them.
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
    """Keys are written in camelCase, as everywhere in Kubernetes; unknown ones are refused."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class Run(Part):
    id: Annotated[Label, Field(max_length=25, description="The run's id; also the name of the release.")]
    attempt: Annotated[int, Field(ge=1, le=999, description="Which try at the run this is.")]
    manifest: Annotated[
        str,
        Field(
            pattern=r"^[0-9a-f]{5}$",
            description="First digits of the digest of the rendered objects; the end of every object's name.",
        ),
    ]


class SecretKey(Part):
    secret: Annotated[Name, Field(description="Name of a Secret in the run's namespace.")]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=253, description="Which key of it.")]


class StoreCredentials(Part):
    access_key: Annotated[SecretKey, Field(description="Where the access key lies.")]
    secret_key: Annotated[SecretKey, Field(description="Where the secret key lies.")]


class Store(Part):
    address: Annotated[StoreAddress, Field(description="The store as pods reach it.")]
    credentials: Annotated[
        StoreCredentials | None,
        Field(description="Mounted into every pod as files. Unset: the pod's own identity is used."),
    ] = None


class ServiceAccount(Part):
    create: Annotated[bool, Field(description="Make one for this run. False: `name` is there already.")] = (
        True
    )
    name: Annotated[
        Name | None, Field(description="An existing ServiceAccount for the conductor; with `create: false`.")
    ] = None
    create_role: Annotated[
        bool, Field(description="Make Role and RoleBinding. False: the platform gives the rights.")
    ] = True
    stages: Annotated[
        Name | None,
        Field(description="ServiceAccount of stage pods (pod identity for the store); no token either way."),
    ] = None


class Conductor(Part):
    image: Annotated[Image, Field(description="Image of the conductor, by digest.")]
    start_timeout_s: Annotated[
        int, Field(ge=1, le=86400, description="How long a stage's pod may take to start.")
    ]
    closing_exit_codes: Annotated[
        list[Annotated[int, Field(ge=1, le=255)]],
        Field(
            min_length=1,
            description="Exit codes that close the attempt; with any other the conductor is started again.",
        ),
    ]


class Stage(Part):
    name: Annotated[Label, Field(description="The stage's name in the plan.")]
    kind: Annotated[StageKind, Field(description="The stage's kind.")]
    image: Annotated[Image, Field(description="Image of the pod, by digest.")]
    cpus: Annotated[int, Field(ge=1, le=1024, description="Processors; a tenth less is requested, no limit.")]
    memory_gib: Annotated[Gib, Field(description="Memory, requested and limit, `shmMib` included.")]
    scratch_gib: Annotated[Gib, Field(description="Size of /scratch, requested and limit.")]
    grace_s: Annotated[
        int, Field(ge=1, le=3600, description="Time between SIGTERM and SIGKILL: for a checkpoint.")
    ]
    shm_mib: Annotated[
        int | None, Field(ge=1, description="Size of /dev/shm. Unset: the runtime's 64 MiB.")
    ] = None
    gpus: Annotated[int, Field(ge=0, le=64, description="GPUs of each node.")] = 0
    device: Annotated[
        LabelValue | None,
        Field(description="The node's label nvidia.com/gpu.product, exactly; needed where there are GPUs."),
    ] = None
    nodes: Annotated[
        int,
        Field(ge=1, le=64, description="Pods that work together; above one an Indexed Job and a Service."),
    ] = 1
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
    """Everything that charts/run is told."""

    run: Annotated[Run, Field(description="Which run, and which attempt at it.")]
    plan: Annotated[Document, Field(description="plan.json, as text: its bytes are the plan's.")]
    request: Annotated[Document, Field(description="request.json, as text: prices and budget.")]
    store: Annotated[Store, Field(description="Where artifacts live.")]
    conductor: Annotated[Conductor, Field(description="The pod that starts stages and watches them.")]
    stages: Annotated[list[Stage], Field(min_length=1, description="Every stage of the plan.")]
    service_account: Annotated[ServiceAccount, Field(description="Who the pods are.")] = ServiceAccount()
    image_pull_secrets: Annotated[list[Name], Field(description="Secrets with which images are pulled.")] = []
    certificate_authority_config_map: Annotated[
        Name | None, Field(description="ConfigMap whose key ca.crt all pods trust.")
    ] = None
    cache_claim: Annotated[
        Name | None,
        Field(description="PersistentVolumeClaim for verified copies. Unset: each pod's scratch."),
    ] = None
    queue: Annotated[Label | None, Field(description="Kueue's local queue for stage Jobs.")] = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for Helm; what is unset is absent (Helm reads null as \"delete the default\")."""
        plain: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return plain


def schema() -> dict[str, Any]:
    """JSON Schema of `Values`: closed at every level, with `helm template`'s draft named.

    A GPU without a product name, and an own ServiceAccount without a name, are refused here too.
    """
    made: dict[str, Any] = Values.model_json_schema(by_alias=True)
    made["$schema"] = "http://json-schema.org/draft-07/schema#"
    # draft-07 knows `definitions`, and ignores what stands beside a $ref: both are put as it reads them.
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
    """Optional values are simply absent, so `null` goes; a $ref beside other keys is wrapped in allOf."""
    if isinstance(node, list):
        return [_without_siblings(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_siblings(value) for key, value in node.items() if key != "title"}
    if "anyOf" in kept:
        members = [member for member in kept.pop("anyOf") if member != {"type": "null"}]
        assert len(members) == 1, "a value is of one type"
        kept = {**members[0], **{key: value for key, value in kept.items() if value is not None}}
    if "$ref" in kept and len(kept) > 1:
        kept = {"allOf": [{"$ref": kept.pop("$ref")}], **kept}
    return kept


def chart_directory() -> Path:
    """charts/run: beside the package in a checkout, inside it in an installed wheel."""
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
