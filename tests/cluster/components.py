"""The processes of the cluster and their settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .certificates import Authority
from .network import Network
from .places import State

NODE = "tuneyard-node"
API_PORT = 6443
ETCD_PORT, ETCD_PEER_PORT = 23790, 23791
KUBELET_PORT = 10250
DNS_HEALTH_PORT, DNS_READY_PORT = 23792, 23793
S3_PORT = 7070
# If all nodes are silent, the controllers take no pod away, and with one node that is always so. A node with this
# label is not counted, so that its pods are taken away as those of one lost node among others.
_NOT_COUNTED = "node.kubernetes.io/exclude-disruption="
# Without these two a node needs 9 s to be ready instead of 3.
_QUICK = ["--kube-api-qps=300", "--kube-api-burst=500"]


@dataclass(frozen=True)
class Programs:
    kube: Path
    coredns: Path
    versitygw: Path


@dataclass(frozen=True)
class Components:
    """The command line of every process; `write` first puts their configuration in place."""

    state: State
    network: Network
    programs: Programs

    @property
    def server(self) -> str:
        return f"https://{self.network.node}:{API_PORT}"

    @property
    def s3_address(self) -> str:
        return f"http://{self.network.node}:{S3_PORT}"

    def _file(self, name: str) -> Path:
        return self.state.directory / name

    def _certificate(self, name: str) -> Path:
        return self.state.certificates / name

    def etcd(self) -> list[str | Path]:
        client, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PEER_PORT}"
        return [
            "etcd",
            f"--data-dir={self._file('etcd')}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def api_server(self) -> list[str | Path]:
        certificate = self._certificate
        return [
            self.programs.kube,
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
            f"--bind-address={self.network.node}",
            f"--advertise-address={self.network.node}",
            f"--secure-port={API_PORT}",
            f"--tls-cert-file={certificate('api-server.crt')}",
            f"--tls-private-key-file={certificate('api-server.key')}",
            f"--client-ca-file={certificate('ca.crt')}",
            f"--kubelet-client-certificate={certificate('api-to-kubelet.crt')}",
            f"--kubelet-client-key={certificate('api-to-kubelet.key')}",
            f"--kubelet-certificate-authority={certificate('ca.crt')}",
            f"--service-cluster-ip-range={self.network.services}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certificate('accounts.key')}",
            f"--service-account-signing-key-file={certificate('accounts.key')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--event-ttl=2h",
        ]

    def controller_manager(self) -> list[str | Path]:
        return [
            self.programs.kube,
            "kube-controller-manager",
            f"--kubeconfig={self._file('controller-manager.kubeconfig')}",
            f"--service-account-private-key-file={self._certificate('accounts.key')}",
            f"--root-ca-file={self._certificate('ca.crt')}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            *_QUICK,
        ]

    def scheduler(self) -> list[str | Path]:
        return [
            self.programs.kube,
            "kube-scheduler",
            f"--kubeconfig={self._file('scheduler.kubeconfig')}",
            "--leader-elect=false",
            "--secure-port=0",
            *_QUICK,
        ]

    def containerd(self) -> list[str | Path]:
        return ["containerd", "--config", self._file("containerd.toml")]

    def kubelet(self) -> list[str | Path]:
        return [
            self.programs.kube,
            "kubelet",
            f"--config={self._file('kubelet.json')}",
            f"--kubeconfig={self._file('kubelet.kubeconfig')}",
            f"--root-dir={self._file('kubelet')}",
            f"--hostname-override={NODE}",
            f"--node-ip={self.network.node}",
            f"--node-labels={_NOT_COUNTED}",
        ]

    def kube_proxy(self) -> list[str | Path]:
        return [self.programs.kube, "kube-proxy", f"--config={self._file('kube-proxy.json')}"]

    def coredns(self) -> list[str | Path]:
        return [self.programs.coredns, "-conf", self._file("Corefile")]

    def versitygw(self) -> list[str | Path]:
        """The keys come in the environment, because every user can read a command line."""
        return [
            self.programs.versitygw,
            "--port",
            f"{self.network.node}:{S3_PORT}",
            "posix",
            self._file("s3"),
        ]

    def write(self, authority: Authority) -> None:
        """Certificates, kubeconfigs and configuration files of every component."""
        node, directory = self.network.node, self.state.directory
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names.append("kubernetes.default.svc.cluster.local")
        authority.issue("api-server", "kube-apiserver", "", [*names, node, self.network.kubernetes_service])
        authority.issue("api-to-kubelet", "kube-apiserver-kubelet-client", "system:masters")
        authority.issue("kubelet-server", NODE, "", [NODE, node])
        for name, user, group in (
            ("controller-manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("kubelet", f"system:node:{NODE}", "system:nodes"),
            ("kube-proxy", "system:kube-proxy", ""),
            ("coredns", "system:coredns", ""),
        ):
            authority.kubeconfig(directory / f"{name}.kubeconfig", self.server, name, user, group)
        authority.kubeconfig(self.state.kubeconfig, self.server, "admin", "admin", "system:masters")
        self._file("containerd.toml").write_text(self._containerd_settings())
        self._file("Corefile").write_text(self._corefile())
        self._file("kubelet.json").write_text(json.dumps(self._kubelet_settings(), indent=2))
        self._file("kube-proxy.json").write_text(json.dumps(self._kube_proxy_settings(), indent=2))

    def _containerd_settings(self) -> str:
        # oom_score and restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower a score.
        return f"""\
version = 2
root = "{self._file("containerd")}"
state = "{self._file("containerd-run")}"
oom_score = 0

[grpc]
  address = "{self.state.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{self._file("containerd-opt")}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/tuneyard-pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self._file("cni")}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{self._file("runc")}"
"""

    def _corefile(self) -> str:
        # The cluster's names are not cached: a trainer asks for its peer before the peer exists.
        # torchrun asks for the names of pod addresses: answered here, not by a distant server.
        node, own = self.network.node, f"cluster.local {self.network.pods} {self.network.services}"
        return f"""\
{own} {{
  bind {node}
  errors
  health 127.0.0.1:{DNS_HEALTH_PORT}
  ready 127.0.0.1:{DNS_READY_PORT}
  kubernetes {own} {{
    kubeconfig {self._file("coredns.kubeconfig")} tuneyard
    ttl 1
  }}
}}
. {{
  bind {node}
  errors
  cache 30
  forward . /etc/resolv.conf
}}
"""

    def _kubelet_settings(self) -> dict[str, Any]:
        directory = self.state.directory
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": str(self.network.node),
            "port": KUBELET_PORT,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._certificate("ca.crt"))},
            },
            "tlsCertFile": str(self._certificate("kubelet-server.crt")),
            "tlsPrivateKeyFile": str(self._certificate("kubelet-server.key")),
            "containerRuntimeEndpoint": f"unix://{self.state.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": ["pods"],
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "podLogsDir": str(directory / "pod-logs"),
            "volumePluginDir": str(directory / "volume-plugins"),
            "clusterDNS": [str(self.network.node)],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            # There is no registry: an image removed by the kubelet could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "imageMaximumGCAge": "0s",
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1Gi",
                "imagefs.available": "1Gi",
            },
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 300,
            "kubeAPIBurst": 500,
        }

    def _kube_proxy_settings(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._file("kube-proxy.kubeconfig"))},
            "mode": "nftables",
            "clusterCIDR": str(self.network.pods),
            "hostnameOverride": NODE,
            "healthzBindAddress": f"{self.network.node}:10256",
            "metricsBindAddress": f"{self.network.node}:10249",
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
