"""The cluster's network: one bridge that is the node's address and every pod's way out.

The bridge's address is where the API server, the name server and the S3 server listen, so that one
address serves from this machine and from inside a pod. NetworkPolicy is accepted by the API and not
enforced: a plain bridge does not know it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from pathlib import Path

from .places import State
from .processes import ClusterError, command

BRIDGE = "tuneyard0"
TABLE = "tuneyard"
CNI_NAME = "tuneyard-pods"
# Private ranges (pods, services): the first pair that nothing on this machine routes to.
CANDIDATES = (
    ("10.244.0.0/22", "10.96.0.0/20"),
    ("172.31.248.0/22", "172.31.240.0/21"),
    ("192.168.216.0/22", "192.168.208.0/21"),
)
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True)
class Network:
    pods: IPv4Network
    services: IPv4Network
    forwarding_before: str

    @property
    def node(self) -> IPv4Address:
        """The bridge's address."""
        return self.pods[1]

    @property
    def kubernetes_service(self) -> IPv4Address:
        return self.services[1]

    def to_json(self) -> dict[str, str]:
        return {
            "pods": str(self.pods),
            "services": str(self.services),
            "forwarding_before": self.forwarding_before,
        }

    @classmethod
    def from_json(cls, facts: dict[str, str]) -> Network:
        return cls(IPv4Network(facts["pods"]), IPv4Network(facts["services"]), facts["forwarding_before"])


def choose() -> Network:
    """A pair of ranges that clashes with no route and no name server of this machine."""
    taken = _taken()
    for pods, services in CANDIDATES:
        ranges = (IPv4Network(pods), IPv4Network(services))
        if not any(one.overlaps(other) for one in ranges for other in taken):
            return Network(*ranges, _FORWARDING.read_text().strip())
    raise ClusterError(f"every range for pods is already routed here: {', '.join(map(str, taken))}")


def up(network: Network, state: State) -> None:
    """The bridge, the masquerading of what leaves it, and the configuration for pods."""
    mtu = _mtu()
    command("ip", "link", "add", BRIDGE, "mtu", str(mtu), "type", "bridge", "nf_call_iptables", "1")
    command("ip", "address", "add", f"{network.node}/{network.pods.prefixlen}", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")
    # So that this machine reaches Services even without a default route.
    command("ip", "route", "add", str(network.services), "dev", BRIDGE)
    _FORWARDING.write_text("1")
    rules = f"""
        table ip {TABLE} {{
          chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr {network.pods} ip daddr != {network.pods} oifname != "{BRIDGE}" masquerade
          }}
        }}"""
    rules_file = state.directory / "masquerade.nft"
    rules_file.write_text(rules)
    command("nft", "-f", rules_file)
    _configure_pods(network, state, mtu)


def down(network: Network | None) -> None:
    """Remove every trace; works on whatever part is there."""
    for family, table in (("ip", TABLE), ("ip", "kube-proxy"), ("ip6", "kube-proxy")):
        command("nft", "delete", "table", family, table, check=False)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        command("ip", "link", "delete", BRIDGE)
    if network is not None:
        _FORWARDING.write_text(network.forwarding_before)


def name_servers() -> list[str]:
    """The host's name servers, from its resolv.conf."""
    lines = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _configure_pods(network: Network, state: State, mtu: int) -> None:
    plugin = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "mtu": mtu,
        "ipam": {
            "type": "host-local",
            "dataDir": str(state.directory / "pod-addresses"),
            "ranges": [[{"subnet": str(network.pods), "rangeStart": str(network.pods[10])}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    directory = state.directory / "cni"
    directory.mkdir()
    document = {"cniVersion": "0.4.0", "name": CNI_NAME, "plugins": [plugin]}
    (directory / "pods.conflist").write_text(json.dumps(document, indent=2))


def _taken() -> list[IPv4Network]:
    routes = json.loads(command("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    found = {route["dst"] for route in routes if route["dst"] != "default" and route.get("dev") != BRIDGE}
    addresses = [server for server in name_servers() if ip_address(server.partition("%")[0]).version == 4]
    networks = [ip_network(one, strict=False) for one in [*found, *addresses]]
    return [one for one in networks if isinstance(one, IPv4Network) and one.prefixlen > 0]


def _mtu() -> int:
    """The default route's MTU: larger packets from pods could be dropped without an error."""
    links = json.loads(command("ip", "-json", "-4", "route", "show", "default") or "[]")
    devices = [link["dev"] for link in links if "dev" in link]
    return min((int(Path(f"/sys/class/net/{device}/mtu").read_text()) for device in devices), default=1500)
