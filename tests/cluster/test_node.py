"""The tests' own node: a real kubelet, names, limits and faults, as the product's tests need them."""

from __future__ import annotations

import boto3
import pytest
from botocore.config import Config

from . import node
from .api import ApiError
from .conftest import Cluster
from .pods import Namespace, restricted_pod, terminated
from .processes import wait_for

pytestmark = pytest.mark.cluster
alone = pytest.mark.alone

SLEEP = "import time; time.sleep(600)"


def test_a_restricted_pod_runs_and_its_log_is_read(namespace: Namespace, base_image: str) -> None:
    said = namespace.output(restricted_pod("hello", base_image, "import os; print('uid', os.getuid())"))
    assert said == "uid 10001\n"


def test_a_pod_that_breaks_the_restricted_standard_is_refused(namespace: Namespace, base_image: str) -> None:
    pod = restricted_pod("root", base_image, "print()")
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(ApiError, match="runAsNonRoot") as refused:
        namespace.create("pods", pod)
    assert refused.value.status == 403


def test_pods_find_each_other_by_a_headless_service(namespace: Namespace, base_image: str) -> None:
    service = {"clusterIP": "None", "selector": {"part": "pair"}, "publishNotReadyAddresses": True}
    namespace.create("services", {"metadata": {"name": "pair"}, "spec": service})
    listen = "import socket; one = socket.create_server(('', 29500)); one.accept()[0].sendall(b'hello')"
    ask = """
import socket, time
while True:
    try:
        print(socket.create_connection(("first.pair", 29500), 5).recv(9).decode())
        break
    except OSError:
        time.sleep(0.1)
"""
    for name, program in (("first", listen), ("second", ask)):
        pod = restricted_pod(name, base_image, program)
        pod["metadata"]["labels"]["part"] = "pair"
        pod["spec"] |= {"hostname": name, "subdomain": "pair"}
        namespace.create("pods", pod)
    namespace.wait_for_phase("second", "Succeeded")
    assert namespace.log("second") == "hello\n"


def test_a_memory_kill_is_reported_as_one(namespace: Namespace, base_image: str) -> None:
    limits = {"limits": {"memory": "32Mi"}}
    namespace.create(
        "pods", restricted_pod("greedy", base_image, "bytearray(b'1' * 2**28)", resources=limits)
    )
    ended = terminated(namespace.wait_for_phase("greedy", "Failed"))
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


@pytest.mark.xdist_group("gpus")
@pytest.mark.usefixtures("one_gpu")
def test_a_second_pod_waits_for_the_only_gpu(namespace: Namespace, base_image: str) -> None:
    for name in ("first", "second"):
        pod = restricted_pod(name, base_image, SLEEP, resources={"limits": {"nvidia.com/gpu": "1"}})
        pod["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-A40"}
        namespace.create("pods", pod)
        if name == "first":
            namespace.wait_for_phase("first", "Running")

    def message() -> str:
        conditions = namespace.pod("second")["status"].get("conditions", [])
        return next((one["message"] for one in conditions if one.get("reason") == "Unschedulable"), "")

    wait_for("the second pod is unschedulable", message, 60)
    assert "Insufficient nvidia.com/gpu" in message()
    assert namespace.pod("second")["status"]["phase"] == "Pending"


def test_a_pod_reaches_the_api_by_its_name(namespace: Namespace, base_image: str) -> None:
    ask = """
import http.client, ssl
context = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
connection = http.client.HTTPSConnection("kubernetes.default", timeout=20, context=context)
connection.request("GET", "/version")
print(connection.getresponse().status)
"""
    pod = restricted_pod("asks", base_image, ask)
    pod["spec"]["automountServiceAccountToken"] = True
    assert namespace.output(pod) == "200\n"


def test_a_pod_reads_from_s3_what_was_written_here(
    namespace: Namespace, base_image: str, s3: node.S3
) -> None:
    client = _client(s3)
    client.put_object(Bucket=s3.bucket, Key=f"{namespace.name}/greeting", Body=b"from outside")
    signed = client.generate_presigned_url(
        "get_object", {"Bucket": s3.bucket, "Key": f"{namespace.name}/greeting"}
    )
    read = f"import urllib.request; print(urllib.request.urlopen({signed!r}, timeout=20).read().decode())"
    assert namespace.output(restricted_pod("reader", base_image, read)) == "from outside\n"


@alone
def test_s3_objects_survive_a_restart_of_the_server(cluster: Cluster, s3: node.S3) -> None:
    state = cluster.own()
    client = _client(s3)
    client.put_object(Bucket=s3.bucket, Key="kept", Body=b"still here")
    node.stop_s3(state)
    node.start_s3(state)
    assert client.get_object(Bucket=s3.bucket, Key="kept")["Body"].read() == b"still here"


@alone
def test_pods_survive_a_restart_of_the_api_server(
    cluster: Cluster, namespace: Namespace, base_image: str
) -> None:
    namespace.create("pods", restricted_pod("stays", base_image, SLEEP))
    before = namespace.wait_for_phase("stays", "Running")
    node.restart_apiserver(cluster.own())
    after = namespace.wait_for_phase("stays", "Running")
    assert (
        after["status"]["containerStatuses"][0]["containerID"]
        == (before["status"]["containerStatuses"][0]["containerID"])
    )


def test_a_crash_of_containers_fails_the_pods_of_one_namespace(
    cluster: Cluster, namespace: Namespace, base_image: str
) -> None:
    namespace.create("pods", restricted_pod("victim", base_image, SLEEP))
    namespace.wait_for_phase("victim", "Running")
    assert node.kill_all_containers(namespace.name, state=cluster.own()) == 1
    ended = terminated(namespace.wait_for_phase("victim", "Failed"))
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")


def _client(s3: node.S3):  # type: ignore[no-untyped-def]  # boto3's clients have no types
    return boto3.client(
        "s3",
        endpoint_url=s3.address,
        region_name="us-east-1",
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        config=Config(signature_version="s3v4"),
    )
